"""What `schedule` makes of a kernel: buffers, and steps in the order they run.

A tile op is *lazy*: it has no code of its own, but is computed inside the loop nest of whoever
reads it. A `Nest` is such a loop nest over one shape, with the roots that demand values.
"""

from dataclasses import dataclass, field
from math import prod

from ..tile.ops import Op, Value
from ..tile.types import Elem

_LINE_BYTES, _LONG_ROW_BYTES = 64, 1024


@dataclass(eq=False, slots=True)
class Storage:
    """`count` elements of a program's own memory."""

    elem: Elem
    count: int

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return self.count * self.elem.size_bytes


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a tile stored row by row."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return tuple(strides)


@dataclass(eq=False, slots=True)
class Buffer:
    """A tile in storage: element (i, j, …) lies at `offset + i·strides[0] + j·strides[1] + …`."""

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def elem(self) -> Elem:
        """The element kind."""
        return self.storage.elem

    @property
    def is_by_rows(self) -> bool:
        """Whether the elements lie in order of their indices, perhaps with gaps between rows."""
        least = 0
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size > 1:
                if stride < least or (not least and stride != 1):
                    return False
                least = stride * size
        return True

    @property
    def is_row_major(self) -> bool:
        """Whether the elements lie one behind the other in order of their indices."""
        natural = row_major(self.shape)
        return all(
            size == 1 or stride == want
            for size, stride, want in zip(self.shape, self.strides, natural, strict=True)
        )

    def view(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> "Buffer":
        """Other indices over the same storage; `offset` counts from this buffer's."""
        return Buffer(self.storage, shape, strides, self.offset + offset)


def new_buffer(elem: Elem, shape: tuple[int, ...]) -> Buffer:
    """A fresh row-major buffer."""
    return Buffer(Storage(elem, prod(shape)), shape, row_major(shape))


def spread_buffer(elem: Elem, shape: tuple[int, ...]) -> Buffer:
    """A fresh buffer to be read in blocks of rows and columns, as `dot` does. Long rows lie a cache
    line further apart than they need: lines a power of two apart crowd in few sets of a cache."""
    width = shape[-1] + _LINE_BYTES // elem.size_bytes
    if shape[-1] * elem.size_bytes < _LONG_ROW_BYTES:
        return new_buffer(elem, shape)
    wide = (*shape[:-1], width)
    return Buffer(Storage(elem, prod(wide)), shape, row_major(wide))


@dataclass(eq=False, slots=True)
class Root:
    """Something a nest must do at each index: `inputs` are the tiles it reads there."""

    inputs: list[Value]

    @property
    def has_effect(self) -> bool:
        """Whether it writes the caller's memory."""
        return False


@dataclass(eq=False, slots=True)
class StoreRoot(Root):
    """Store to the caller's memory."""

    op: Op

    @property
    def has_effect(self) -> bool:
        """It does."""
        return True


@dataclass(eq=False, slots=True)
class AtomicRoot(Root):
    """An atomic op on the caller's memory; the old values go to `buffer`."""

    op: Op
    buffer: Buffer

    @property
    def has_effect(self) -> bool:
        """It does."""
        return True


@dataclass(eq=False, slots=True)
class CopyRoot(Root):
    """Writes its one input to `buffer`."""

    buffer: Buffer


@dataclass(eq=False, slots=True)
class ReduceRoot(Root):
    """Folds its inputs along `op.attrs["axis"]` into `buffers`, one per result."""

    op: Op
    buffers: list[Buffer]


@dataclass(eq=False, slots=True)
class Nest:
    """One loop nest over `shape`. `values` counts the lazy values computed in it and their uses
    there; `saves` are those among them that later steps read again."""

    shape: tuple[int, ...]
    roots: list[Root] = field(default_factory=list[Root])
    values: dict[Value, int] = field(default_factory=dict[Value, int])
    saves: dict[Value, Buffer] = field(default_factory=dict[Value, Buffer])

    @property
    def reduce_axis(self) -> int | None:
        """The dim its reductions fold; None if it has none."""
        for root in self.roots:
            if isinstance(root, ReduceRoot):
                return root.op.attrs["axis"]
        return None


@dataclass(eq=False, slots=True)
class Single:
    """One op that runs by itself: on scalars, or on operands that lie in buffers."""

    op: Op


@dataclass(eq=False, slots=True)
class Slot:
    """Where a value that crosses a block boundary lives: a tile in `buffer`, a scalar in a
    variable of its own (`buffer` None)."""

    value: Value
    buffer: Buffer | None


@dataclass(eq=False, slots=True)
class Assign:
    """Writes scalars to slots."""

    pairs: list[tuple[Slot, Value]]


@dataclass(eq=False, slots=True)
class Body:
    """The steps of one block; `slots` hold its arguments."""

    label: str
    slots: list[Slot]
    steps: "list[Step]" = field(default_factory=lambda: [])


@dataclass(eq=False, slots=True)
class Loop:
    """`scf.for`: the slots of `body` carry its values. Those in `from_zero` are not written before
    the loop: the `dot` beside each starts from zeros in the first turn."""

    op: Op
    body: Body
    results: list[Slot]
    from_zero: list[tuple[Slot, Op]]


@dataclass(eq=False, slots=True)
class Branch:
    """`scf.if`: one body per arm; both write `results`."""

    op: Op
    arms: list[Body]
    results: list[Slot]


@dataclass(eq=False, slots=True)
class While:
    """`scf.while`: `before` ends in the condition and writes the slots of `after`."""

    op: Op
    before: Body
    condition: Value
    after: Body
    results: list[Slot]


@dataclass(eq=False, slots=True)
class Jump:
    """`cond_br`: each way out first writes the arguments of the block it leads to."""

    op: Op
    edges: list[Body]


@dataclass(eq=False, slots=True)
class Graph:
    """Blocks that branch to each other: a kernel with early returns, or an inlined function, whose
    returns write `results`."""

    bodies: list[Body]
    results: list[Slot]
    op: Op | None = None


Step = Nest | Single | Assign | Loop | Branch | While | Jump | Graph


@dataclass(eq=False, slots=True)
class Schedule:
    """A whole kernel. `buffers` says where each stored tile lies."""

    body: Graph
    buffers: dict[Value, Buffer]
    storages: list[Storage]

    @property
    def scratch_bytes(self) -> int:
        """Memory one program needs for its tiles."""
        return sum(storage.size_bytes for storage in self.storages)
