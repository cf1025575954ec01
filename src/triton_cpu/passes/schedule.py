"""Turns a kernel into steps: walks its ops in order and decides what runs when, and from where."""

from ..errors import UnsupportedOp
from ..tile.ops import Block, Module, Op, Region, Value
from . import control
from .addresses import is_matrix
from .fuse import Fuser
from .induction import simplify_induction
from .lifetimes import FOREVER, Lifetimes, is_lazy
from .steps import (
    AtomicRoot,
    Body,
    Buffer,
    ReduceRoot,
    Schedule,
    Single,
    Slot,
    StoreRoot,
    new_buffer,
    row_major,
)
from .storages import storages_of
from .widen import widen_folds
from .zeros import mark_zeros


def schedule(module: Module, *, checked: bool) -> Schedule:
    """The steps of the module's kernel. If accesses are `checked`, only nests read memory."""
    region = module.kernel.region
    widen_folds(region)
    simplify_induction(region)
    mark_zeros(region)
    return Scheduler(Lifetimes(region), checked=checked).kernel(region)


class Scheduler(Fuser):
    """A `Fuser` that knows what each op needs."""

    def __init__(self, lifetimes: Lifetimes, *, checked: bool) -> None:
        super().__init__(lifetimes)
        self.checked = checked
        self.targets: list[tuple[str, list[Slot]]] = []  # where yields and returns hand values to
        self.block_slots: dict[str, list[Slot]] = {}

    def kernel(self, region: Region) -> Schedule:
        """The whole kernel, as a graph of blocks."""
        graph = control.graph(self, region, [])
        storages = [buffer.storage for buffer in self.buffers.values()] + storages_of(graph)
        return Schedule(graph, self.buffers, list(dict.fromkeys(storages)))

    def run_block(self, block: Block, body: Body) -> list[Value]:
        """Schedules all ops of `block` but its terminator into `body`; gives what that returns."""
        outer = self.steps, self.position, self.loads, self.block
        self.steps, self.loads = body.steps, []
        if self.block is not None:
            self.outer_blocks.append(self.block)
        self.block = block
        for position, op in enumerate(block.ops[:-1]):
            self.position = position
            self.op(op)
        self.position = len(block.ops) - 1
        self._keep_for_other_blocks(block)
        control.end_block(self, block.ops[-1])
        self.flush()
        self.steps, self.position, self.loads, self.block = outer
        if self.block is not None:
            self.outer_blocks.pop()
        return block.ops[-1].operands

    def _keep_for_other_blocks(self, block: Block) -> None:
        for op in block.ops:
            for value in op.results:
                if is_lazy(op) and self.lifetimes.last(value) == FOREVER and self.is_heavy(value):
                    self.place(value)

    def op(self, op: Op) -> None:
        """Schedules one op."""
        handler = _HANDLERS.get(op.name)
        if handler is not None:
            handler(self, op)
        elif is_lazy(op):
            pass
        elif op.is_elementwise or op.name in _SCALAR_OPS:
            self.single(op)
        else:
            raise UnsupportedOp(f"The CPU backend can't run {op.name}.", where=str(op.location))

    def single(self, op: Op) -> None:
        """Runs `op` by itself, after whatever computes its scalar operands."""
        for value in op.operands:
            self.finish(value)
        self.steps.append(Single(op))

    def effect(self, op: Op) -> None:
        """Runs `op` by itself, in order with every access to memory."""
        self.keep_loads()
        self.flush()
        for value in op.operands:
            if value.type.is_tile:
                self.place(value)
        self.flush()
        self.steps.append(Single(op))

    def result_buffer(self, value: Value) -> Buffer:
        """A new buffer in which `value` will lie."""
        buffer = self.buffers[value] = new_buffer(value.type.elem, value.type.dims)
        return buffer


def _load(plan: Scheduler, op: Op) -> None:
    plan.flush_effects()
    if op.result.type.is_tile:
        plan.loads.append(op.result)
    else:
        plan.single(op)


def _store(plan: Scheduler, op: Op) -> None:
    if not op.operands[0].type.is_tile:
        plan.keep_loads()
        plan.flush()
        plan.steps.append(Single(op))
        return
    plan.keep_loads(op)
    plan.add(op.operands[0].type.dims, StoreRoot(list(op.operands), op))


def _reduce(plan: Scheduler, op: Op) -> None:
    axis: int = op.attrs["axis"]
    shape = op.operands[0].type.dims
    rest = shape[:axis] + shape[axis + 1 :]
    buffers = [new_buffer(value.type.elem, rest) for value in op.operands]
    plan.add(shape, ReduceRoot(list(op.operands), op, buffers))
    for value, buffer in zip(op.results, buffers, strict=True):
        plan.buffers[value] = buffer


def _atomic(plan: Scheduler, op: Op) -> None:
    plan.keep_loads()
    plan.flush()
    if not op.operands[0].type.is_tile:
        plan.steps.append(Single(op))
        return
    buffer = new_buffer(op.result.type.elem, op.result.type.dims)
    plan.add(op.operands[0].type.dims, AtomicRoot(list(op.operands), op, buffer))
    plan.flush()
    plan.buffers[op.result] = buffer


def _from_buffers(plan: Scheduler, op: Op) -> None:
    """Ops whose elements need other elements than their own: all operands lie in buffers first."""
    for value in op.operands:
        if value.type.is_tile:
            plan.place(value)
    plan.flush()
    for value in op.results:
        if value.type.is_tile:
            plan.result_buffer(value)
    plan.steps.append(Single(op))


def _reshape(plan: Scheduler, op: Op) -> None:
    buffer = plan.row_major(op.operands[0])
    shape = op.result.type.dims
    plan.buffers[op.result] = buffer.view(shape, row_major(shape))


def _join(plan: Scheduler, op: Op) -> None:
    target = plan.result_buffer(op.result)
    plan.flush()
    for index, value in enumerate(op.operands):
        half = target.view(target.shape[:-1], target.strides[:-1], index)
        plan.write(value, half)
    plan.flush()


def _split(plan: Scheduler, op: Op) -> None:
    source = plan.place(op.operands[0])
    for index, value in enumerate(op.results):
        plan.buffers[value] = source.view(
            source.shape[:-1], source.strides[:-1], index * source.strides[-1]
        )


def _cat(plan: Scheduler, op: Op) -> None:
    target = plan.result_buffer(op.result)
    plan.flush()
    axis: int = op.attrs.get("axis", 0)
    offset = 0
    for value in op.operands:
        plan.write(value, target.view(value.type.dims, target.strides, offset))
        offset += value.type.dims[axis] * target.strides[axis]
    plan.flush()


def _dot(plan: Scheduler, op: Op) -> None:
    """The accumulator's buffer becomes the result's where nothing else needs it."""
    accumulator = op.operands[2]
    for value in op.operands:
        if value is not accumulator and value.type.is_tile and not _read_in_place(plan, op, value):
            plan.place(value)
    buffer = plan.buffers.get(accumulator)
    plan.flush()
    free = plan.dead_buffer_of(accumulator)
    if buffer is not None and free is buffer:
        target = buffer
    elif op.attrs.get("from_zero"):
        target = plan.fresh_buffer(accumulator)
    else:
        target = free or plan.fresh_buffer(accumulator)
        plan.write(accumulator, target)
        plan.flush()
    plan.buffers[op.result] = target
    plan.steps.append(Single(op))


def _read_in_place(plan: Scheduler, op: Op, value: Value) -> bool:
    """Whether `dot` reads the operand where it lies in the caller's memory: a matrix that is loaded
    for it alone, in the same block, with no store since."""
    load = value.op
    return (
        op.name == "dot"
        and not plan.checked
        and value not in plan.buffers
        and load is not None
        and load.name == "load"
        and len(load.operands) == 1
        and not load.attrs.get("isVolatile")
        and plan.lifetimes.use_count(value) == 1
        and plan.lifetimes.home(value) is plan.block
        and value.type.elem.bits > 1
        and value.type.dims[0] > 1
        and is_matrix(load.operands[0])
    )


def _unsplat(plan: Scheduler, op: Op) -> None:
    plan.place(op.operands[0])
    plan.flush()
    plan.steps.append(Single(op))


def _barrier(plan: Scheduler, op: Op) -> None:
    plan.keep_loads()
    plan.flush()


_SCALAR_OPS = frozenset({"const", "poison", "program_id", "num_programs", "assume"})
_HANDLERS = {
    "load": _load,
    "store": _store,
    "reduce": _reduce,
    "atomic_rmw": _atomic,
    "atomic_cas": _atomic,
    "atomic_poll": _atomic,
    "scan": _from_buffers,
    "gather": _from_buffers,
    "histogram": _from_buffers,
    "map_elementwise": _from_buffers,
    "dot_scaled": _dot,
    "reshape": _reshape,
    "join": _join,
    "split": _split,
    "cat": _cat,
    "dot": _dot,
    "unsplat": _unsplat,
    "barrier": _barrier,
    "assert": Scheduler.effect,
    "print": Scheduler.effect,
    "for": control.loop,
    "if": control.branch,
    "while": control.while_loop,
    "call": control.call,
}
