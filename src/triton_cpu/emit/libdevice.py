"""`tl.extra.libdevice` functions: LLVM intrinsics, own polynomials, or the C math library."""

from typing import TYPE_CHECKING

from ..errors import UnsupportedOp
from ..tile.ops import words
from ..tile.translate import base_name
from ..tile.types import ELEMS, F32, I1, Elem
from . import vecmath
from .writer import Writer, literal, vector

if TYPE_CHECKING:
    from .elementwise import Apply

_INTRINSIC = {
    **{name: name for name in ("sqrt", "fabs", "floor", "ceil", "trunc", "rint", "nearbyint")},
    **{"fma": "fma", "copysign": "copysign", "fmax": "maxnum", "fmin": "minnum"},
}
_FAST = {
    **{f"fast_{name}f": name for name in ("exp", "log", "log2", "sin", "cos", "tanh")},
}
_LIBRARY = words(
    "acos acosh asin asinh atan atanh atan2 cbrt cos cosh erf erfc exp exp2 expm1 fdim fmod hypot"
    " lgamma log log10 log1p log2 pow remainder round sin sinh tan tanh tgamma nextafter j0 j1 y0"
    " y1 logb"
)
_ROUND_TO_INT = {"llrint": "rint", "llround": "round"}


def call(w: Writer, op: "Apply") -> str:
    """One libdevice function, named by the op's `symbol`."""
    symbol = str(op.attrs["symbol"])
    name = base_name(symbol)
    elem = op.kinds[0]
    if name in _FAST:
        return vecmath.call(w, _FAST[name], op.args[0], op.lanes)
    if name == "fast_dividef":
        return w.let(f"fdiv {vector(op.result, op.lanes)} {op.args[0]}, {op.args[1]}")
    plain = _plain(name, elem)
    if plain in _TESTS:
        return _TESTS[plain](w, op, elem)
    if plain in _ROUND_TO_INT:
        whole = w.intrinsic(_ROUND_TO_INT[plain], elem, op.lanes, op.args[0])
        return w.convert("fptosi", whole, elem, op.result, op.lanes)
    if plain == "rsqrt":
        root = w.intrinsic("sqrt", elem, op.lanes, op.args[0])
        one = w.constant(1.0, elem, op.lanes)
        return w.let(f"fdiv {vector(elem, op.lanes)} {one}, {root}")
    if plain in _INTRINSIC:
        return w.intrinsic(_INTRINSIC[plain], op.result, op.lanes, *op.args)
    if plain in vecmath.FUNCTIONS and elem.name == "f32":
        return vecmath.call(w, plain, op.args[0], op.lanes)
    if plain in _LIBRARY:
        return library_call(w, plain, op.args, op.kinds, op.result, op.lanes)
    raise UnsupportedOp(f"The CPU backend has no {symbol}.")


def _plain(name: str, elem: Elem) -> str:
    """`exp` of `expf` (float32) or `exp` (float64)."""
    if name.endswith("d") and name[:-1] in ("isnan", "isinf", "isfinite", "signbit"):
        return name[:-1]
    return name[:-1] if elem.name == "f32" and name.endswith("f") and name != "erf" else name


def library_call(
    w: Writer, name: str, args: list[str], kinds: list[Elem], result: Elem, lanes: int
) -> str:
    """The C library's function, once a lane; 16-bit floats go through float32."""
    from .convert import float_cast

    if result.is_float and result.bits == 16:
        args = [float_cast(w, arg, kind, F32, lanes) for arg, kind in zip(args, kinds, strict=True)]
        wide = library_call(w, name, args, [F32] * len(args), F32, lanes)
        return float_cast(w, wide, F32, result, lanes)
    symbol = name + ("f" if result.name == "f32" else "")
    given = ", ".join(kind.llvm for kind in kinds)
    w.declare(symbol, f"declare {result.llvm} @{symbol}({given})")

    def one(values: list[str]) -> str:
        typed = ", ".join(f"{kind.llvm} {value}" for kind, value in zip(kinds, values, strict=True))
        return w.let(f"call {result.llvm} @{symbol}({typed})")

    if not lanes:
        return one(args)
    places = [_spilled(w, arg, kind, lanes) for arg, kind in zip(args, kinds, strict=True)]
    out = w.alloca(vector(result, lanes))
    with w.loop(lanes) as index:
        values = [
            w.load(kind, w.offset(kind, place, index, ELEMS["i32"]))
            for place, kind in zip(places, kinds, strict=True)
        ]
        w.store(result, one(values), w.offset(result, out, index, ELEMS["i32"]))
    return w.load(result, out, lanes)


def _spilled(w: Writer, value: str, elem: Elem, lanes: int) -> str:
    place = w.alloca(vector(elem, lanes))
    w.store(elem, value, place, lanes)
    return place


def _isnan(w: Writer, op: "Apply", elem: Elem) -> str:
    flag = w.let(f"fcmp uno {vector(elem, op.lanes)} {op.args[0]}, {op.args[0]}")
    return w.convert("zext", flag, I1, op.result, op.lanes)


def _against_infinity(w: Writer, op: "Apply", elem: Elem, predicate: str) -> str:
    size = w.intrinsic("fabs", elem, op.lanes, op.args[0])
    infinite = w.splat(elem, literal(float("inf"), elem), op.lanes)
    flag = w.let(f"fcmp {predicate} {vector(elem, op.lanes)} {size}, {infinite}")
    return w.convert("zext", flag, I1, op.result, op.lanes)


def _isinf(w: Writer, op: "Apply", elem: Elem) -> str:
    return _against_infinity(w, op, elem, "oeq")


def _isfinite(w: Writer, op: "Apply", elem: Elem) -> str:
    return _against_infinity(w, op, elem, "olt")


def _signbit(w: Writer, op: "Apply", elem: Elem) -> str:
    pattern = ELEMS[f"i{elem.bits}"]
    bits = w.convert("bitcast", op.args[0], elem, pattern, op.lanes)
    zero = w.constant(0, pattern, op.lanes)
    flag = w.let(f"icmp slt {vector(pattern, op.lanes)} {bits}, {zero}")
    return w.convert("zext", flag, I1, op.result, op.lanes)


_TESTS = {
    "isnan": _isnan,
    "isinf": _isinf,
    "isfinite": _isfinite,
    "finite": _isfinite,
    "signbit": _signbit,
}
