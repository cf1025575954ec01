"""`tl.device_print`: one line an element, through the C library."""

from ..errors import UnsupportedOp
from ..tile.ops import Op, Value
from ..tile.types import F64, I64, Elem
from .context import Context
from .convert import float_cast
from .rearrange import each

_PRINTF = "declare i32 @printf(ptr, ...)"


def emit_print(c: Context, op: Op) -> None:
    """`pid (x, y, z) idx (i, j)prefix value`, for each operand and element."""
    prefix, signs = str(op.attrs.get("prefix", "")), op.attrs.get("isSigned", [])
    c.w.declare("printf", _PRINTF)
    c.w.declare("fflush", "declare i32 @fflush(ptr)")
    if not op.operands:
        _line(c, prefix, [], "", [])
    for number, value in enumerate(op.operands):
        label = f"{prefix}(operand {number}) " if len(op.operands) > 1 else prefix
        signed = bool(signs[number]) if number < len(signs) else True
        with each(c, value.type.dims) as index:
            form, given = _formatted(c, value, index, signed, bool(op.attrs.get("hex")))
            _line(c, label, index, form, [given])
    c.w.let("call i32 @fflush(ptr null)")


def _line(c: Context, label: str, index: list[str], form: str, values: list[str]) -> None:
    places = ", ".join(["%d"] * len(index))
    text = f"pid (%d, %d, %d) idx ({places}){label.replace('%', '%%')}{form}\n"
    args = [f"ptr {c.w.string(text)}", "i32 %pid0", "i32 %pid1", "i32 %pid2"]
    args += [f"i32 {name}" for name in index] + values
    c.w.let(f"call i32 (ptr, ...) @printf({', '.join(args)})")


def _formatted(
    c: Context, value: Value, index: list[str], signed: bool, hexadecimal: bool
) -> tuple[str, str]:
    """printf's format of one element, and its argument."""
    w, elem = c.w, value.type.elem
    name = c.read(c.buffer_of(value), index) if value.type.is_tile else c.scalar(value)
    if elem.is_pointer:
        return "%p", f"ptr {name}"
    if elem.is_float or elem.is_fp8:
        return "%f", f"double {float_cast(w, name, elem, F64, 0)}"
    if not elem.is_int:
        raise UnsupportedOp(f"Values of {elem.name} can't be printed.")
    wide = w.convert("sext" if signed and elem.bits > 1 else "zext", name, elem, I64, 0)
    if hexadecimal:
        return f"0x%0{_digits(elem)}llx", f"i64 {_masked(c, wide, elem)}"
    return ("%lld" if signed else "%llu"), f"i64 {wide}"


def _digits(elem: Elem) -> int:
    return max(1, elem.bits // 4)


def _masked(c: Context, wide: str, elem: Elem) -> str:
    return wide if elem.bits == 64 else c.w.let(f"and i64 {wide}, {(1 << elem.bits) - 1}")
