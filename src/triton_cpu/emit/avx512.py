"""Single AVX-512 instructions that LLVM does not find by itself, on vectors of whole registers."""

from collections.abc import Callable

from ..tile.types import BF16, F32, Elem
from .writer import Writer, vector

REGISTER_BITS = 512
_CURRENT_ROUNDING = "i32 4"
_NAN_OR_SUBNORMAL = 0x01 | 0x20 | 0x80  # of VFPCLASS: quiet NaN, subnormal, signalling NaN
_MAXIMUM, _MINIMUM = 5, 4  # of VRANGE: the number, if the other is NaN; sign of the result kept


def fits(w: Writer, elem: Elem, lanes: int, feature: str) -> bool:
    """Whether vectors of `lanes` elements fill registers, on a CPU with `feature`."""
    if feature not in w.features or elem.name not in ("f32", "f64"):
        return False
    return lanes > 0 and lanes * elem.bits % REGISTER_BITS == 0


def scale(w: Writer, elem: Elem, value: str, power: str, lanes: int) -> str:
    """value · 2^⌊power⌋, right for denormal and infinite results too."""
    return _by_register(w, elem, lanes, "scalef", [value, power], "")


def number_max(w: Writer, elem: Elem, a: str, b: str, lanes: int) -> str:
    """The larger; the other one where one is NaN."""
    return _by_register(w, elem, lanes, "range", [a, b], f"i32 {_MAXIMUM}, ")


def number_min(w: Writer, elem: Elem, a: str, b: str, lanes: int) -> str:
    """The smaller; the other one where one is NaN."""
    return _by_register(w, elem, lanes, "range", [a, b], f"i32 {_MINIMUM}, ")


def to_bf16(w: Writer, value: str, lanes: int) -> str:
    """Float32 to the nearest bfloat16; subnormal numbers count as zero."""
    return w.let(f"fptrunc {vector(F32, lanes)} {value} to {vector(BF16, lanes)}")


def any_nan_or_subnormal(w: Writer, value: str, lanes: int) -> str:
    """Whether there is one among float32 numbers, as i1."""
    width = REGISTER_BITS // F32.bits
    kind, name = vector(F32, width), "llvm.x86.avx512.fpclass.ps.512"
    w.declare(name, f"declare <{width} x i1> @{name}({kind}, i32)")
    found = ""
    for at in range(0, lanes, width):
        piece = w.shuffle(F32, value, "poison", lanes, [*range(at, at + width)])
        one = w.let(f"call <{width} x i1> @{name}({kind} {piece}, i32 {_NAN_OR_SUBNORMAL})")
        found = w.let(f"or <{width} x i1> {found}, {one}") if found else one
    return w.let(f"icmp ne i{width} {w.let(f'bitcast <{width} x i1> {found} to i{width}')}, 0")


def _by_register(w: Writer, elem: Elem, lanes: int, name: str, args: list[str], extra: str) -> str:
    width = REGISTER_BITS // elem.bits
    kind, mask = vector(elem, width), f"i{width}"
    full = f"llvm.x86.avx512.mask.{name}.{'ps' if elem.bits == 32 else 'pd'}.512"
    middle = "i32, " if extra else ""
    w.declare(full, f"declare {kind} @{full}({kind}, {kind}, {middle}{kind}, {mask}, i32)")

    def one(a: str, b: str) -> str:
        return w.let(
            f"call {kind} @{full}({kind} {a}, {kind} {b}, {extra}{kind} poison,"
            f" {mask} -1, {_CURRENT_ROUNDING})"
        )

    return split_apply(w, elem, lanes, width, one, args)


def split_apply(
    w: Writer, elem: Elem, lanes: int, width: int, one: Callable[[str, str], str], args: list[str]
) -> str:
    """`one` on pieces of `width` lanes, put together again."""
    if lanes == width:
        return one(*args)
    pieces = [
        one(*(w.shuffle(elem, arg, "poison", lanes, [*range(at, at + width)]) for arg in args))
        for at in range(0, lanes, width)
    ]
    while len(pieces) > 1:
        pieces = [
            w.shuffle(elem, a, b, width, [*range(2 * width)])
            for a, b in zip(pieces[::2], pieces[1::2], strict=True)
        ]
        width *= 2
    return pieces[0]
