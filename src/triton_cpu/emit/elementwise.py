"""Element-wise ops on scalars and vectors of lanes."""

from dataclasses import dataclass
from typing import Any

from ..errors import UnsupportedOp
from ..tile.types import ELEMS, F32, F64, I1, I64, Elem
from . import avx512, libdevice, vecmath
from .convert import float_cast
from .writer import Writer, vector

_BINARY = {
    **{"add": ("add", "fadd"), "sub": ("sub", "fsub"), "mul": ("mul", "fmul")},
    **{"div": ("", "fdiv"), "rem": ("", "frem")},
    **{name: (name, "") for name in ("sdiv", "udiv", "srem", "urem", "and", "or", "xor", "shl")},
    **{"shr": ("lshr", ""), "sar": ("ashr", "")},
}
_INTRINSICS = {
    **{name: name for name in ("smax", "smin", "umax", "umin", "sqrt", "fabs", "floor", "ceil")},
    **{"fmaxnum": "maxnum", "fminnum": "minnum", "fmaximum": "maximum", "fminimum": "minimum"},
    **{"rint": "roundeven", "round": "round", "fma": "fma", "copysign": "copysign"},
    **{"ctpop": "ctpop"},
}
_CONVERSIONS = ("sitofp", "uitofp", "fptosi", "fptoui", "inttoptr", "ptrtoint", "trunc", "zext")
PROPAGATE_NAN = 0xFFFF


@dataclass(frozen=True, slots=True)
class Apply:
    """One element-wise op to be written: what it is, its operands' and result's elements."""

    name: str
    attrs: dict[str, Any]
    args: list[str]
    kinds: list[Elem]
    result: Elem
    lanes: int
    pointee: Elem | None = None
    contract: bool = True

    def with_elem(self, elem: Elem, args: list[str]) -> "Apply":
        """The same op on other elements."""
        kinds = [elem if kind.is_float else kind for kind in self.kinds]
        return Apply(
            self.name, self.attrs, args, kinds, elem, self.lanes, self.pointee, self.contract
        )


def apply(w: Writer, op: Apply) -> str:
    """Writes the op; gives the name of its result."""
    name, args, result, lanes = op.name, op.args, op.result, op.lanes
    if name in _BINARY:
        return _binary(w, op)
    if name in _INTRINSICS:
        return _intrinsic(w, op)
    if name in vecmath.FUNCTIONS:
        return mathematical(w, name, args[0], result, lanes)
    if name in _CONVERSIONS:
        return _conversion(w, op)
    special = _SPECIAL.get(name)
    if special is None:
        raise UnsupportedOp(f"No lowering for the element-wise op {name}.")
    return special(w, op)


def _widened(w: Writer, op: Apply) -> str:
    """Computes a 16-bit float op in f32 and rounds once."""
    args = [
        float_cast(w, arg, kind, F32, op.lanes) if kind.is_float else arg
        for arg, kind in zip(op.args, op.kinds, strict=True)
    ]
    wide = apply(w, op.with_elem(F32, args))
    return float_cast(w, wide, F32, op.result, op.lanes)


def _binary(w: Writer, op: Apply) -> str:
    integer, floating = _BINARY[op.name]
    if not op.result.is_float:
        if op.result.is_fp8:
            raise UnsupportedOp(
                f"There is no arithmetic on {op.result.name}.",
                fix="cast to a wider float first: x.to(tl.float32)",
            )
        return w.let(f"{integer} {vector(op.result, op.lanes)} {op.args[0]}, {op.args[1]}")
    if op.result.bits == 16:
        return _widened(w, op)
    flags = "contract " if op.contract else ""
    kind = vector(op.result, op.lanes)
    return w.let(f"{floating} {flags}{kind} {op.args[0]}, {op.args[1]}")


def _intrinsic(w: Writer, op: Apply) -> str:
    if op.name == "fabs" and op.result.is_fp8:
        return w.let(f"and {vector(op.result, op.lanes)} {op.args[0]}, {_magnitude(w, op)}")
    if op.result.is_float and op.result.bits == 16:
        return _widened(w, op)
    exact = {"fmaxnum": avx512.number_max, "fminnum": avx512.number_min}.get(op.name)
    if exact is not None and avx512.fits(w, op.result, op.lanes, "avx512dq"):
        return exact(w, op.result, op.args[0], op.args[1], op.lanes)
    return w.intrinsic(_INTRINSICS[op.name], op.result, op.lanes, *op.args)


def _magnitude(w: Writer, op: Apply) -> str:
    return w.splat(op.result, "127", op.lanes)


def mathematical(w: Writer, name: str, x: str, elem: Elem, lanes: int) -> str:
    """exp, log, sin, …: own polynomials for f32, the C library for f64."""
    if elem.name == "f64":
        return libdevice.library_call(w, name, [x], [F64], F64, lanes)
    if elem.name != "f32":
        wide = vecmath.call(w, name, float_cast(w, x, elem, F32, lanes), lanes)
        return float_cast(w, wide, F32, elem, lanes)
    return vecmath.call(w, name, x, lanes)


def _conversion(w: Writer, op: Apply) -> str:
    source, value = op.kinds[0], op.args[0]
    if source.name == "bf16":
        value, source = float_cast(w, value, source, F32, op.lanes), F32
    if op.result.name == "bf16":
        single = w.convert(op.name, value, source, F32, op.lanes)
        return float_cast(w, single, F32, op.result, op.lanes)
    return w.convert(op.name, value, source, op.result, op.lanes)


def _sext(w: Writer, op: Apply) -> str:
    source, target = op.kinds[0], op.result
    how = "trunc" if source.bits > target.bits else "sext"  # index casts go either way
    return w.convert(how, op.args[0], source, target, op.lanes)


def _cmp(w: Writer, op: Apply) -> str:
    elem, args = op.kinds[0], op.args
    if elem.is_float:
        if elem.bits == 16:
            args = [float_cast(w, arg, elem, F32, op.lanes) for arg in args]
            elem = F32
        kind = vector(elem, op.lanes)
        return w.let(f"fcmp {op.attrs['predicate']} {kind} {args[0]}, {args[1]}")
    return w.let(f"icmp {op.attrs['predicate']} {vector(elem, op.lanes)} {args[0]}, {args[1]}")


def _select(w: Writer, op: Apply) -> str:
    kind = vector(op.result, op.lanes)
    condition = f"{vector(I1, op.lanes)} {op.args[0]}"
    return w.let(f"select {condition}, {kind} {op.args[1]}, {kind} {op.args[2]}")


def _neg(w: Writer, op: Apply) -> str:
    return w.let(f"fneg {vector(op.result, op.lanes)} {op.args[0]}")


def _rsqrt(w: Writer, op: Apply) -> str:
    if op.result.bits == 16:
        return _widened(w, op)
    root = w.intrinsic("sqrt", op.result, op.lanes, op.args[0])
    one = w.constant(1.0, op.result, op.lanes)
    return w.let(f"fdiv {vector(op.result, op.lanes)} {one}, {root}")


def _with_flag(w: Writer, op: Apply) -> str:
    """abs, ctlz, cttz: intrinsics with a second argument that says what is undefined: nothing."""
    name = {"iabs": "abs"}.get(op.name, op.name)
    kind = vector(op.result, op.lanes)
    full = f"llvm.{name}.{f'v{op.lanes}' if op.lanes else ''}{op.result.llvm}"
    w.declare(full, f"declare {kind} @{full}({kind}, i1)")
    return w.let(f"call {kind} @{full}({kind} {op.args[0]}, i1 false)")


def _clamp(w: Writer, op: Apply) -> str:
    if op.result.bits == 16:
        return _widened(w, op)
    nan = op.attrs.get("propagateNan", 0) == PROPAGATE_NAN
    lower, upper = ("maximum", "minimum") if nan else ("maxnum", "minnum")
    x, low, high = op.args
    raised = w.intrinsic(lower, op.result, op.lanes, x, low)
    return w.intrinsic(upper, op.result, op.lanes, raised, high)


def _mulhi(w: Writer, op: Apply) -> str:
    wide = ELEMS[f"i{2 * op.result.bits}"]
    a, b = (w.convert("zext", arg, op.result, wide, op.lanes) for arg in op.args)
    product = w.let(f"mul {vector(wide, op.lanes)} {a}, {b}")
    shift = w.constant(op.result.bits, wide, op.lanes)
    high = w.let(f"lshr {vector(wide, op.lanes)} {product}, {shift}")
    return w.convert("trunc", high, wide, op.result, op.lanes)


def _fcast(w: Writer, op: Apply) -> str:
    return float_cast(w, op.args[0], op.kinds[0], op.result, op.lanes, op.attrs.get("rounding"))


def _bitcast(w: Writer, op: Apply) -> str:
    return w.convert("bitcast", op.args[0], op.kinds[0], op.result, op.lanes)


def _addptr(w: Writer, op: Apply) -> str:
    assert op.pointee is not None
    index = op.args[1]
    if op.kinds[1].bits < 64:
        index = w.convert("sext", index, op.kinds[1], I64, op.lanes)
    pointer, offset = vector(op.result, op.lanes), vector(I64, op.lanes)
    return w.let(f"getelementptr {op.pointee.memory}, {pointer} {op.args[0]}, {offset} {index}")


def _ceildiv(w: Writer, op: Apply) -> str:
    """⌈a/b⌉ of signed integers: the truncated quotient, plus one if a positive rest was cut off."""
    kind, (a, b) = vector(op.result, op.lanes), op.args
    quotient, rest = w.let(f"sdiv {kind} {a}, {b}"), w.let(f"srem {kind} {a}, {b}")
    zero = w.constant(0, op.result, op.lanes)
    inexact = w.let(f"icmp ne {kind} {rest}, {zero}")
    same_sign = w.let(f"icmp sge {kind} {w.let(f'xor {kind} {a}, {b}')}, {zero}")
    truth = vector(I1, op.lanes)
    up = w.let(f"and {truth} {inexact}, {same_sign}")
    return w.let(f"add {kind} {quotient}, {w.convert('zext', up, I1, op.result, op.lanes)}")


def _pow(w: Writer, op: Apply) -> str:
    return libdevice.library_call(w, "pow", op.args, op.kinds, op.result, op.lanes)


def _extern(w: Writer, op: Apply) -> str:
    return libdevice.call(w, op)


_SPECIAL = {
    "sext": _sext,
    "cmp": _cmp,
    "select": _select,
    "neg": _neg,
    "rsqrt": _rsqrt,
    "iabs": _with_flag,
    "ctlz": _with_flag,
    "cttz": _with_flag,
    "clamp": _clamp,
    "mulhi": _mulhi,
    "fcast": _fcast,
    "bitcast": _bitcast,
    "addptr": _addptr,
    "ceildiv": _ceildiv,
    "pow": _pow,
    "extern": _extern,
}
