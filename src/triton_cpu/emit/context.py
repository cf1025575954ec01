"""What all parts of the emission share: the writer, the schedule, and where values are."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ..passes.steps import Buffer, Schedule, Slot, Storage
from ..tile.ops import Op, Value
from ..tile.types import I32, Elem
from .lanes import MAX_FACTOR, Lanes, combined_factor, factor_of, number_of
from .writer import Writer


@dataclass(frozen=True, slots=True)
class Target:
    """What the code may assume of the CPU and the launch."""

    vector_bits: int
    features: frozenset[str] = frozenset()
    contract: bool = True  # fuse a·b + c into one rounding
    sanitize: bool = False


class Bounds(NamedTuple):
    """The allocation of pointer argument number `argument`: first address, first behind it."""

    argument: int
    first: str
    last: str


@dataclass(eq=False, slots=True)
class Context:
    """The state of one kernel's emission. `sites` lists the places that may report a fault;
    `bounds` the allocation of each pointer argument, if accesses are checked."""

    w: Writer
    schedule: Schedule
    target: Target
    kernel: str
    scalars: dict[Value, str] = field(default_factory=dict[Value, str])
    factors: dict[str, int] = field(default_factory=dict[str, int])
    positive: set[str] = field(default_factory=set[str])
    variables: dict[Value, str] = field(default_factory=dict[Value, str])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    slots: dict[str, list[Slot]] = field(default_factory=dict[str, list[Slot]])
    return_label: str | None = None
    bounds: dict[Value, Bounds] = field(default_factory=dict[Value, Bounds])
    arguments: frozenset[Value] = frozenset()
    only_arguments: bool = True  # and no pointers that were read from memory
    starts: dict[Op, str] = field(default_factory=dict[Op, str])  # when a `dot` adds to zeros
    sites: list[dict[str, str | int]] = field(default_factory=lambda: [])
    _bases: dict[Storage, str] = field(default_factory=dict[Storage, str])

    def base(self, storage: Storage) -> str:
        """The address of a storage."""
        if storage not in self._bases:
            count = max(1, storage.count)
            self._bases[storage] = self.w.alloca(f"[{count} x {storage.elem.memory}]")
        return self._bases[storage]

    def buffer_of(self, value: Value) -> Buffer:
        """Where a stored tile lies."""
        return self.schedule.buffers[value]

    def scalar(self, value: Value) -> str:
        """The name of a scalar; one that a reduction made is read from its buffer."""
        name = self.scalars.get(value)
        if name is None:
            buffer = self.schedule.buffers[value]
            return self.read(buffer, [])
        return name

    def define(self, value: Value, name: str, factor: int = 1, positive: bool = False) -> None:
        """Gives a scalar its name."""
        self.scalars[value] = name
        if factor > 1:
            self.factors[name] = factor
        if positive:
            self.positive.add(name)

    def lanes_of(self, value: Value) -> Lanes:
        """A scalar as the same value in every lane."""
        name = self.scalar(value)
        number = number_of(name)
        elem, pointee = value.type.elem, value.type.pointee
        if number is not None:
            return Lanes(name, elem, 0, factor_of(number), number >= 0, pointee)
        return Lanes(name, elem, 0, self.factors.get(name, 1), name in self.positive, pointee)

    def scalar_factor(self, op: Op) -> tuple[int, bool]:
        """What divides the result of a scalar integer op, and whether it can't be negative."""
        known = [self.lanes_of(value) for value in op.operands if value.type.elem.is_int]
        if op.name in ("sext", "zext", "trunc", "bitcast") and known:
            return known[0].factor, known[0].positive
        if op.name == "select" and len(known) == 3:
            known = known[1:]
        if len(known) != 2:
            return 1, False
        factor = min(combined_factor(op.name, known[0].factor, known[1].factor), MAX_FACTOR)
        keeps = ("add", "mul", "sdiv", "udiv", "srem", "urem", "smax", "smin", "select", "and")
        return factor, op.name in keeps and known[0].positive and known[1].positive

    # Elements of buffers, at indices that are literals or names of i32

    def address(self, buffer: Buffer, index: list[str]) -> str:
        """The address of one element."""
        w = self.w
        constant, offset = buffer.offset, None
        for name, stride in zip(index, buffer.strides, strict=True):
            number = number_of(name)
            if stride == 0:
                continue
            if number is not None:
                constant += number * stride
                continue
            term = name if stride == 1 else w.let(f"mul nsw i32 {name}, {stride}")
            offset = term if offset is None else w.let(f"add nsw i32 {offset}, {term}")
        address = self.base(buffer.storage)
        if constant:
            address = w.let(
                f"getelementptr inbounds {buffer.elem.memory}, ptr {address}, i64 {constant}"
            )
        return address if offset is None else w.offset(buffer.elem, address, offset, I32)

    def read(self, buffer: Buffer, index: list[str]) -> str:
        """One element."""
        return self.w.load(buffer.elem, self.address(buffer, index))

    def write(self, buffer: Buffer, index: list[str], value: str) -> None:
        """Writes one element."""
        self.w.store(buffer.elem, value, self.address(buffer, index))

    def lane_count(self, size: int, widest: int) -> int:
        """Lanes of a chunk along a dim of `size`: a power of two, about four vector registers of
        elements of `widest` bits, so that their latencies overlap."""
        return max(1, min(size, 4 * self.target.vector_bits // max(32, min(widest, 64))))


def widest_bits(elems: list[Elem]) -> int:
    """The largest element among them that is no pointer."""
    return max([elem.bits for elem in elems if not elem.is_pointer], default=8)
