"""Gathers lazy tile ops into loop nests.

Roots (stores, reductions, copies) that follow each other and have one shape share a nest, until a
side effect, another shape, or a value that the nest itself must finish first gets in the way.
"""

from ..tile.ops import Block, Op, Value
from .lifetimes import FOREVER, Lifetimes, is_heavy, is_lazy
from .steps import (
    Buffer,
    CopyRoot,
    Nest,
    ReduceRoot,
    Root,
    Slot,
    Step,
    new_buffer,
    spread_buffer,
)

_INDEX_VIEWS = ("expand", "broadcast", "trans", "splat")


class Fuser:
    """The open nest, the buffers so far, and the list of steps that grows."""

    def __init__(self, lifetimes: Lifetimes) -> None:
        self.lifetimes = lifetimes
        self.buffers: dict[Value, Buffer] = {}
        self.steps: list[Step] = []
        self.block: Block | None = None  # the one being scheduled, and the op in it
        self.position = -1
        self.outer_blocks: list[Block] = []
        self.loads: list[Value] = []  # lazy loads of this block that no store may overtake
        self._open: Nest | None = None
        self._unfinished: set[Value] = set()  # what the open nest reduces into buffers
        self._heavy: dict[Value, bool] = {}

    def is_heavy(self, value: Value) -> bool:
        """Whether the value is worth a buffer."""
        known = self._heavy.get(value)
        if known is None:
            op = value.op
            if value in self.buffers or op is None or not value.type.is_tile:
                known = value.type.is_tile
            else:
                known = is_heavy(op, any(self.is_heavy(operand) for operand in op.operands))
            self._heavy[value] = known
        return known

    def needed_later(self, value: Value) -> bool:
        """Whether a step after the current op may read the value."""
        home = self.lifetimes.home(value)
        if home is self.block:
            return self.lifetimes.last(value) > self.position
        return home in self.outer_blocks or self.lifetimes.last(value) == FOREVER

    def add(self, shape: tuple[int, ...], root: Root) -> None:
        """Puts `root` into the open nest, or into a new one."""
        if self._open is not None and not self._fits(self._open, shape, root):
            self.flush()
        while True:
            nest, done = self._open, len(self.steps)
            values = dict(nest.values) if nest else {}
            for value in root.inputs:
                self._reach(value, True, values)
            if len(self.steps) == done:
                break
        if nest is None:
            nest = self._open = Nest(shape)
        nest.values = values
        nest.roots.append(root)
        if isinstance(root, ReduceRoot):
            self._unfinished.update(root.op.results)

    def _fits(self, nest: Nest, shape: tuple[int, ...], root: Root) -> bool:
        if nest.shape != shape:
            return False
        axis = root.op.attrs["axis"] if isinstance(root, ReduceRoot) else None
        return axis is None or nest.reduce_axis in (None, axis)

    def _reach(self, value: Value, same_index: bool, values: dict[Value, int]) -> None:
        """Collects the lazy values behind `value`. One that is read at other indices than its
        own nest computes it must lie in a buffer before."""
        if value in self._unfinished:
            self.flush()
            return
        if not value.type.is_tile or value in self.buffers:
            return
        op = value.op
        assert op is not None
        assert is_lazy(op), f"{value} has no buffer"
        if op.name in _INDEX_VIEWS:
            values[value] = values.get(value, 0) + 1
            for operand in op.operands:
                self._reach(operand, False, values)
            return
        if not same_index and self.is_heavy(value):
            self.place(value)
            return
        if value in values:
            values[value] += 1
            return
        values[value] = 1
        for operand in op.operands:
            self._reach(operand, same_index, values)

    def flush(self) -> None:
        """Ends the open nest. Values in it that later steps need are saved as they pass by."""
        nest = self._open
        if nest is None:
            return
        self._open = None
        copied = {root.inputs[0] for root in nest.roots if isinstance(root, CopyRoot)}
        for value, count in nest.values.items():
            if (
                value.type.shape == nest.shape
                and value.op is not None
                and value.op.name not in _INDEX_VIEWS
                and value not in copied
                and self.is_heavy(value)
                and self.lifetimes.use_count(value) > count
                and value not in self.buffers
                and self.needed_later(value)
            ):
                nest.saves[value] = self.fresh_buffer(value)
        self.steps.append(nest)
        self.buffers.update(nest.saves)
        self._unfinished.clear()

    def finish(self, value: Value) -> None:
        """Makes sure a scalar or a stored tile is there: ends the nest that computes it."""
        if value in self._unfinished:
            self.flush()

    def flush_effects(self) -> None:
        """Ends the open nest if it writes the caller's memory."""
        if self._open is not None and any(root.has_effect for root in self._open.roots):
            self.flush()

    def place(self, value: Value) -> Buffer:
        """The buffer that holds `value`, filled now if it was lazy."""
        self.finish(value)
        if value not in self.buffers:
            self.flush()
        if value in self.buffers:  # ending the nest may have saved it
            return self.buffers[value]
        view = self._view(value)
        if view is not None:
            self.buffers[value] = view
        else:
            self.copy(value, self.fresh_buffer(value))
            self.flush()
        return self.buffers[value]

    def fresh_buffer(self, value: Value) -> Buffer:
        """A new buffer for `value`, laid out for those that read it."""
        readers = {op.name for op in self.lifetimes.uses.get(value, ())}
        new = spread_buffer if "dot" in readers else new_buffer
        return new(value.type.elem, value.type.dims)

    def _view(self, value: Value) -> Buffer | None:
        """A view of the operand's buffer, if `value` only renames its indices."""
        op = value.op
        if op is None or op.name not in ("expand", "broadcast", "trans"):
            return None
        if not self.is_heavy(op.operands[0]):
            return None
        buffer = self.place(op.operands[0])
        shape, strides = buffer.shape, buffer.strides
        if op.name == "trans":
            order: list[int] = op.attrs["order"]
            return buffer.view(value.type.dims, tuple(strides[dim] for dim in order))
        if op.name == "expand":
            axis: int = op.attrs["axis"]
            return buffer.view(value.type.dims, (*strides[:axis], 0, *strides[axis:]))
        spread = zip(shape, value.type.dims, strides, strict=True)
        return buffer.view(value.type.dims, tuple(0 if a != b else s for a, b, s in spread))

    def copy(self, value: Value, buffer: Buffer) -> None:
        """Adds a copy of `value` to `buffer`, which then is where it lies if it had no place."""
        self.add(value.type.dims, CopyRoot([value], buffer))
        if value not in self.buffers:
            self.flush()
            self.buffers[value] = buffer

    def write(self, value: Value, buffer: Buffer) -> None:
        """Adds a copy of `value` to `buffer`; `value` stays where it is."""
        self.add(value.type.dims, CopyRoot([value], buffer))

    def row_major(self, value: Value) -> Buffer:
        """`value` in a buffer whose elements follow each other."""
        buffer = self.place(value)
        if buffer.is_row_major and buffer.offset == 0:
            return buffer
        fresh = new_buffer(value.type.elem, value.type.dims)
        self.write(value, fresh)
        self.flush()
        return fresh

    def keep_loads(self, store: Op | None = None) -> None:
        """Before a side effect: what loads have read, or will be asked for, is read now. A load
        that `store` may overwrite only at the index it is read at need not be."""
        for value in self.loads:
            if value in self.buffers or value in self._unfinished:
                continue
            if self.needed_later(value) or (store is not None and self._may_overlap(value, store)):
                self.place(value)
        self.loads = [
            value
            for value in self.loads
            if value not in self.buffers and self.lifetimes.last(value) >= self.position
        ]

    def _may_overlap(self, load: Value, store: Op) -> bool:
        """Whether `store`, which reads `load` in its own nest, may hit other elements of it."""
        if self.lifetimes.last(load) < self.position:
            return False
        assert load.op is not None
        read, written = load.op.operands[0], store.operands[0]
        if _same(read, written):
            return False
        return base_pointer(read) is base_pointer(written)

    def read_by(self, value: Value) -> list[tuple[Buffer, bool]]:
        """The buffers from which `value` is computed, and whether at its own indices only."""
        found: list[tuple[Buffer, bool]] = []

        def visit(one: Value, same_index: bool) -> None:
            if not one.type.is_tile:
                return
            if one in self.buffers:
                found.append((self.buffers[one], same_index))
                return
            assert one.op is not None
            inner = same_index and one.op.name not in _INDEX_VIEWS
            for operand in one.op.operands:
                visit(operand, inner)

        visit(value, True)
        return found

    def dead_buffer_of(self, value: Value) -> Buffer | None:
        """A buffer of `value`'s type that nothing needs once `value` is computed from it: its
        result may replace it, element by element."""
        sources = self.read_by(value)
        for source, buffer in self.buffers.items():
            if (
                source.type == value.type
                and not self.needed_later(source)
                and buffer.is_by_rows
                and any(one is buffer and same for one, same in sources)
                and all(same for one, same in sources if one.storage is buffer.storage)
                and self._sole_owner(buffer)
            ):
                return buffer
        return None

    def _sole_owner(self, buffer: Buffer) -> bool:
        """Whether no living value shares the storage."""
        return all(
            not self.needed_later(value)
            for value, other in self.buffers.items()
            if other.storage is buffer.storage
        )

    def store_to_slots(self, pairs: list[tuple[Slot, Value]]) -> list[tuple[Slot, Value]]:
        """Writes tiles to their slots, as if all at once; gives the scalars left to assign."""
        storages = {slot.buffer.storage for slot, _ in pairs if slot.buffer}
        moves: list[tuple[Value, Buffer]] = []
        for slot, value in pairs:
            if slot.buffer is None or self.buffers.get(value) is slot.buffer:
                continue
            moves.append((value, slot.buffer))
        staged: list[tuple[Value, Buffer, Buffer | None]] = []
        for value, target in moves:
            hazard = any(
                buffer.storage in storages and (buffer.storage is not target.storage or not same)
                for buffer, same in self.read_by(value)
            )
            through = new_buffer(value.type.elem, value.type.dims) if hazard else None
            if through is not None:
                self.write(value, through)
            staged.append((value, target, through))
        self.flush()
        for value, target, through in staged:
            if through is None:
                self.write(value, target)
        self.flush()
        for value, target, through in staged:
            if through is not None:
                held = self.lifetimes.stand_in(value)
                self.buffers[held] = through
                self.write(held, target)
        self.flush()
        return [(slot, value) for slot, value in pairs if slot.buffer is None]


def base_pointer(value: Value) -> Value:
    """The scalar pointer a tile of pointers is an offset from."""
    while value.op is not None and value.op.name in (
        *("addptr", "splat", "broadcast", "expand", "trans", "bitcast"),
    ):
        value = value.op.operands[0]
    return value


def _same(a: Value, b: Value, depth: int = 0) -> bool:
    """Whether two values are computed alike, so that they are equal."""
    if a is b:
        return True
    if a.op is None or b.op is None or depth > 8 or a.type != b.type:
        return False
    return (
        a.op.name == b.op.name
        and a.op.name not in ("load", "for", "if", "while", "call", "reduce", "atomic_rmw")
        and a.op.attrs == b.op.attrs
        and len(a.op.operands) == len(b.op.operands)
        and a.index == b.index
        and not a.op.regions
        and all(_same(x, y, depth + 1) for x, y in zip(a.op.operands, b.op.operands, strict=True))
    )
