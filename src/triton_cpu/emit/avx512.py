"""Single AVX-512 instructions that LLVM does not find by itself, on vectors of whole registers."""

from collections.abc import Callable

from ..tile.types import Elem
from .writer import Writer, vector

REGISTER_BITS = 512
_CURRENT_ROUNDING = "i32 4"
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
