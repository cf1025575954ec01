"""`tl.dot_scaled`: operands in small floats with one power of two for each 32 elements of a row.

The operands are widened, scaled, to float32 and multiplied like any others.
"""

from ..errors import UnsupportedOp
from ..passes.steps import Buffer, new_buffer
from ..tile.ops import Op
from ..tile.types import ELEMS, F32, I8, I32, Elem
from .context import Context
from .convert import float_cast
from .dot import multiply
from .rearrange import each
from .writer import literal

_FORMATS = {0: "f8E4M3FN", 1: "f8E5M2", 5: "bf16", 6: "f16"}
_E2M1 = 4
_BLOCK = 32
_FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def emit_dot_scaled(c: Context, op: Op) -> None:
    """accumulator += (a · 2^a_scale) · (b · 2^b_scale)."""
    left, right, _, *rest = op.operands
    _, _, _, has_left, has_right = op.attrs["segments"]
    scales = [c.buffer_of(value) for value in rest]
    left_scale = scales.pop(0) if has_left else None
    right_scale = scales.pop(0) if has_right else None
    attrs = op.attrs
    out = c.buffer_of(op.result)
    a = _widen(c, c.buffer_of(left), attrs["a_elem_type"], attrs.get("lhs_k_pack", True), -1)
    b = _widen(c, c.buffer_of(right), attrs["b_elem_type"], attrs.get("rhs_k_pack", True), -2)
    if left_scale is not None:
        _scale(c, a, left_scale, -1)
    if right_scale is not None:
        _scale(c, b, right_scale, -2)
    multiply(c, a, b, out)


def _widen(c: Context, source: Buffer, form: int, pack_along_k: bool, k_dim: int) -> Buffer:
    """The operand as float32. Two 4-bit floats share a byte, the first in its low half: along k,
    or along the other dim."""
    shape = list(source.shape)
    packed = k_dim if pack_along_k else -3 - k_dim
    if form == _E2M1:
        shape[packed] *= 2
    elif form not in _FORMATS:
        raise UnsupportedOp("tl.dot_scaled takes e2m1, e4m3, e5m2, bf16 and fp16.")
    target = new_buffer(F32, tuple(shape))
    with each(c, source.shape) as index:
        value = c.read(source, index)
        if form == _E2M1:
            _unpack(c, target, index, packed, value)
        else:
            elem = ELEMS[_FORMATS[form]]
            value = c.w.convert("bitcast", value, source.elem, elem, 0)
            c.write(target, index, float_cast(c.w, value, elem, F32, 0))
    return target


def _unpack(c: Context, target: Buffer, index: list[str], packed: int, byte: str) -> None:
    w = c.w
    for half in range(2):
        bits = w.let(f"lshr i8 {byte}, {4 * half}")
        at = list(index)
        doubled = w.let(f"mul i32 {index[packed]}, 2")
        at[packed] = w.let(f"add i32 {doubled}, {half}")
        c.write(target, at, _fp4(c, w.convert("zext", bits, I8, I32, 0)))


def _fp4(c: Context, bits: str) -> str:
    """sign · value, from a table of the eight magnitudes."""
    w = c.w
    values = ", ".join(f"float {literal(value, F32)}" for value in _FP4_VALUES)
    name = "@fp4"
    w.globals.setdefault(name, f"{name} = private constant [8 x float] [{values}]")
    size = w.load(F32, w.offset(F32, name, w.let(f"and i32 {bits}, 7"), I32))
    negative = w.let(f"icmp ne i32 {w.let(f'and i32 {bits}, 8')}, 0")
    return w.let(f"select i1 {negative}, float {w.let(f'fneg float {size}')}, float {size}")


def _scale(c: Context, target: Buffer, scale: Buffer, k_dim: int) -> None:
    """Multiplies by 2^(scale − 127), one scale for each 32 elements along k; 255 is NaN. Scales
    lie as (rows, k / 32) for both operands."""
    w = c.w
    with each(c, target.shape) as index:
        block = w.let(f"udiv i32 {index[k_dim]}, {_BLOCK}")
        row = index[-2] if k_dim == -1 else index[-1]
        byte = c.read(scale, [*index[:-2], row, block])
        factor = _power(c, w.convert("zext", byte, I8, I32, 0), scale.elem)
        value = w.let(f"fmul float {c.read(target, index)}, {factor}")
        c.write(target, index, value)


def _power(c: Context, exponent: str, elem: Elem) -> str:
    if elem.bits != 8:
        raise UnsupportedOp("tl.dot_scaled takes scales of 8 bits.")
    w = c.w
    pattern = w.let(f"shl i32 {exponent}, 23")
    tiny = w.let(f"icmp eq i32 {exponent}, 0")  # 2^−127 is a denormal number
    pattern = w.let(f"select i1 {tiny}, i32 {1 << 22}, i32 {pattern}")
    nan = w.let(f"icmp eq i32 {exponent}, 255")
    pattern = w.let(f"select i1 {nan}, i32 {0x7FC00000}, i32 {pattern}")
    return w.let(f"bitcast i32 {pattern} to float")
