"""What a nest computes for one chunk of lanes: the same value in all, an arithmetic sequence, or a
vector. Index arithmetic stays scalar as long as it is a sequence, which is what makes a load of
consecutive addresses one vector load."""

from dataclasses import dataclass
from math import gcd

from ..tile.types import I64, PTR, Elem
from .writer import Writer, vector

MAX_FACTOR = 1 << 30


@dataclass(frozen=True, slots=True)
class Lanes:
    """`value` is a scalar if `step` is a number: lane i holds value + i·step (for a pointer:
    i·step elements of `pointee` further on). With `step` None it is a vector.

    `factor` divides the scalar; `positive` says that no lane is negative.
    """

    value: str
    elem: Elem
    step: int | None = 0
    factor: int = 1
    positive: bool = False
    pointee: Elem | None = None

    @property
    def is_uniform(self) -> bool:
        """The same in every lane."""
        return self.step == 0

    @property
    def is_vector(self) -> bool:
        """Held lane by lane."""
        return self.step is None


def as_vector(w: Writer, lanes: Lanes, count: int) -> str:
    """The lanes as an LLVM vector."""
    if lanes.is_vector:
        return lanes.value
    if lanes.is_uniform:
        return w.splat(lanes.elem, lanes.value, count)
    assert lanes.step is not None
    if lanes.elem.is_pointer:
        assert lanes.pointee is not None
        offsets = ", ".join(f"i64 {i * lanes.step}" for i in range(count))
        return w.let(
            f"getelementptr {lanes.pointee.memory}, ptr {lanes.value}, <{count} x i64> <{offsets}>"
        )
    steps = w.counting(lanes.elem, lanes.step, count)
    if lanes.value == "0":
        return steps
    base = w.splat(lanes.elem, lanes.value, count)
    return w.let(f"add {vector(lanes.elem, count)} {base}, {steps}")


def number_of(text: str) -> int | None:
    """The integer a literal stands for; None for a name or a float."""
    digits = text[1:] if text.startswith("-") else text
    return int(text) if digits.isdigit() else None


def factor_of(value: int) -> int:
    """The largest power of two that divides `value`."""
    return value & -value if value else MAX_FACTOR


def combined_factor(name: str, a: int, b: int) -> int:
    """What divides the result of an integer op, given what divides its operands."""
    if name in ("add", "sub", "smax", "smin", "umax", "umin", "srem", "urem"):
        return gcd(a, b)
    if name == "mul":
        return min(a * b, MAX_FACTOR)
    return 1


def sequence(w: Writer, name: str, args: list[Lanes], elem: Elem, count: int) -> Lanes | None:
    """The result of an integer op on sequences, if that is a sequence again; else None."""
    if name in ("add", "sub"):
        return _sum(w, name, *args)
    if name == "mul":
        return _product(w, *args)
    if name == "sext" and args[0].elem.bits >= 32 and elem.bits >= 32:
        how = "trunc" if args[0].elem.bits > elem.bits else "sext"
        value = w.convert(how, args[0].value, args[0].elem, elem, 0)
        return Lanes(value, elem, args[0].step, args[0].factor, args[0].positive)
    if name == "zext" and args[0].positive and args[0].elem.bits >= 32:
        value = w.convert("zext", args[0].value, args[0].elem, elem, 0)
        return Lanes(value, elem, args[0].step, args[0].factor, True)
    if name in ("sdiv", "udiv", "srem", "urem"):
        return _division(w, name, args[0], args[1], count)
    return None


def _sum(w: Writer, name: str, a: Lanes, b: Lanes) -> Lanes:
    assert a.step is not None
    assert b.step is not None
    step = a.step + b.step if name == "add" else a.step - b.step
    if b.value == "0":
        value = a.value
    elif a.value == "0" and name == "add":
        value = b.value
    else:
        value = w.let(f"{name} {a.elem.llvm} {a.value}, {b.value}")
    positive = name == "add" and a.positive and b.positive
    return Lanes(value, a.elem, step, gcd(a.factor, b.factor), positive)


def _product(w: Writer, a: Lanes, b: Lanes) -> Lanes | None:
    for x, y in ((a, b), (b, a)):
        number = number_of(y.value)
        if y.is_uniform and number is not None:
            assert x.step is not None
            value = w.let(f"mul {a.elem.llvm} {x.value}, {y.value}")
            factor = min(x.factor * factor_of(number), MAX_FACTOR)
            return Lanes(value, a.elem, x.step * number, factor, x.positive and number >= 0)
    return None


def _division(w: Writer, name: str, a: Lanes, b: Lanes, count: int) -> Lanes | None:
    """All lanes of a chunk lie between two multiples of the divisor, if both are aligned."""
    aligned = a.step == 1 and b.is_uniform and a.factor % count == 0 and b.factor % count == 0
    if not aligned or not a.positive:
        return None
    value = w.let(f"{name} {a.elem.llvm} {a.value}, {b.value}")
    if name in ("srem", "urem"):
        return Lanes(value, a.elem, 1, gcd(a.factor, b.factor), True)
    return Lanes(value, a.elem, 0, 1, True)


def turning_point(w: Writer, predicate: str, a: Lanes, b: Lanes) -> tuple[str, bool] | None:
    """The lane, as i64, before which a comparison of consecutive numbers with a single one comes
    out other than from it on, and whether it is true before; None of any other comparison."""
    if a.step == 0:
        a, b, predicate = b, a, _MIRRORED.get(predicate, "")
    if a.step != 1 or b.step != 0 or predicate not in _MIRRORED:
        return None
    first, bound = (w.convert("sext", one.value, one.elem, I64, 0) for one in (a, b))
    turn = w.intrinsic("ssub.sat", I64, 0, bound, first)
    if predicate in ("sle", "sgt"):
        turn = w.intrinsic("sadd.sat", I64, 0, turn, "1")
    return turn, predicate in ("slt", "sle")


_MIRRORED = {"slt": "sgt", "sgt": "slt", "sle": "sge", "sge": "sle"}


def moved(w: Writer, pointer: Lanes, offset: Lanes, pointee: Elem) -> Lanes:
    """`addptr` of sequences."""
    assert pointer.step is not None
    assert offset.step is not None
    value = pointer.value
    if number_of(offset.value) != 0:
        wide = offset.value
        if offset.elem.bits < 64:
            wide = w.convert("sext", wide, offset.elem, I64, 0)
        value = w.let(f"getelementptr {pointee.memory}, ptr {pointer.value}, i64 {wide}")
    return Lanes(value, PTR, pointer.step + offset.step, 1, False, pointee)
