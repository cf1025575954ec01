"""Loops, branches and early returns as basic blocks; what crosses them lives in slots."""

from ..passes.steps import Assign, Branch, Graph, Jump, Loop, Nest, Single, Slot, Step, While
from ..tile.ops import Op
from .context import Context
from .lanes import number_of
from .nest import emit_nest
from .singles import emit_single


def emit_steps(c: Context, steps: list[Step]) -> None:
    """Writes steps in order."""
    for step in steps:
        if isinstance(step, Nest):
            emit_nest(c, step)
        elif isinstance(step, Single):
            if step.op.name in ("br", "return"):
                _terminator(c, step.op)
            else:
                emit_single(c, step.op)
        elif isinstance(step, Assign):
            _assign(c, step)
        elif isinstance(step, Loop):
            _loop(c, step)
        elif isinstance(step, Branch):
            _branch(c, step)
        elif isinstance(step, While):
            _while(c, step)
        elif isinstance(step, Jump):
            _jump(c, step)
        else:
            emit_graph(c, step)


def _variable(c: Context, slot: Slot) -> str:
    """The memory of a scalar slot."""
    value = slot.value
    if value not in c.variables:
        c.variables[value] = c.w.alloca(value.type.elem.llvm, 8)
    return c.variables[value]


def _assign(c: Context, step: Assign) -> None:
    names = [c.scalar(value) for _, value in step.pairs]
    for (slot, value), name in zip(step.pairs, names, strict=True):
        c.w.do(f"store {value.type.elem.llvm} {name}, ptr {_variable(c, slot)}")


def _read_slots(c: Context, slots: list[Slot]) -> None:
    """Gives the scalars of slots names in the current block."""
    for slot in slots:
        if slot.buffer is None:
            name = c.w.let(f"load {slot.value.type.elem.llvm}, ptr {_variable(c, slot)}")
            c.define(slot.value, name)


def _share(c: Context, source: list[Slot], target: list[Slot]) -> None:
    """Makes the results of a step read the slots its body wrote."""
    for one, other in zip(source, target, strict=True):
        if one.buffer is None:
            c.variables[other.value] = _variable(c, one)


def _loop(c: Context, step: Loop) -> None:
    """`for i in range(lower, upper, step)`, with a signed or unsigned comparison."""
    w, op = c.w, step.op
    lower, upper, stride = (c.lanes_of(value) for value in op.operands[:3])
    kind = lower.elem.llvm
    counter = w.alloca(kind, 8)
    w.do(f"store {kind} {lower.value}, ptr {counter}")
    predicate = "ult" if op.attrs.get("unsignedCmp") else "slt"
    if step.from_zero:
        runs = w.let(f"icmp {predicate} {kind} {lower.value}, {upper.value}")
        with w.when(w.let(f"xor i1 {runs}, true")):
            for slot, _ in step.from_zero:
                _clear(c, slot)
    stem = w.name("for")
    w.jump(stem)
    w.label(stem)
    index = w.let(f"load {kind}, ptr {counter}")
    more = w.let(f"icmp {predicate} {kind} {index}, {upper.value}")
    w.branch(more, f"{stem}.body", f"{stem}.end")
    w.label(f"{stem}.body")
    factor = stride.factor if number_of(lower.value) == 0 else min(lower.factor, stride.factor)
    c.define(op.regions[0].block.args[0], index, factor, lower.positive and stride.positive)
    _read_slots(c, step.body.slots)
    for _, dot in step.from_zero:
        c.starts[dot] = w.let(f"icmp eq {kind} {index}, {lower.value}")
    emit_steps(c, step.body.steps)
    following = w.let(f"add {kind} {index}, {stride.value}")
    w.do(f"store {kind} {following}, ptr {counter}")
    w.jump_back(stem, not op.attrs.get("disable_licm"))
    w.label(f"{stem}.end")
    _share(c, step.body.slots, step.results)
    _read_slots(c, step.results)


def _clear(c: Context, slot: Slot) -> None:
    assert slot.buffer is not None
    name, storage = "llvm.memset.p0.i64", slot.buffer.storage
    c.w.declare(name, f"declare void @{name}(ptr, i8, i64, i1)")
    c.w.do(f"call void @{name}(ptr {c.base(storage)}, i8 0, i64 {storage.size_bytes}, i1 false)")


def _branch(c: Context, step: Branch) -> None:
    w = c.w
    stem = w.name("if")
    two = len(step.arms) > 1
    condition = c.scalar(step.op.operands[0])
    w.branch(condition, f"{stem}.then", f"{stem}.else" if two else f"{stem}.end")
    for arm, name in zip(step.arms, ("then", "else"), strict=False):
        w.label(f"{stem}.{name}")
        emit_steps(c, arm.steps)
        w.jump(f"{stem}.end")
    w.label(f"{stem}.end")
    _read_slots(c, step.results)


def _while(c: Context, step: While) -> None:
    w = c.w
    stem = w.name("while")
    w.jump(stem)
    w.label(stem)
    _read_slots(c, step.before.slots)
    emit_steps(c, step.before.steps)
    w.branch(c.scalar(step.condition), f"{stem}.body", f"{stem}.end")
    w.label(f"{stem}.body")
    _read_slots(c, step.after.slots)
    emit_steps(c, step.after.steps)
    w.jump_back(stem, not step.op.attrs.get("disable_licm"))
    w.label(f"{stem}.end")
    _share(c, step.after.slots, step.results)
    _read_slots(c, step.results)


def emit_graph(c: Context, graph: Graph) -> None:
    """Blocks with jumps among them; `return` goes to the end, where the results are read."""
    w = c.w
    stem = w.name("graph")
    outer = c.return_label
    c.return_label = f"{stem}.end" if len(graph.bodies) > 1 or graph.op is not None else None
    for number, body in enumerate(graph.bodies):
        c.labels[body.label] = f"{stem}.{number}"
    for number, body in enumerate(graph.bodies):
        if number:
            w.label(c.labels[body.label])
        _read_slots(c, body.slots)
        emit_steps(c, body.steps)
    if c.return_label is not None:
        w.label(c.return_label)
    c.return_label = outer
    _read_slots(c, graph.results)


def _terminator(c: Context, op: Op) -> None:
    w = c.w
    if op.name == "return":
        if c.return_label is not None:
            w.jump(c.return_label)
    else:
        w.jump(c.labels[op.attrs["targets"][0]])


def _jump(c: Context, step: Jump) -> None:
    w = c.w
    stem = w.name("edge")
    w.branch(c.scalar(step.op.operands[0]), f"{stem}.0", f"{stem}.1")
    for number, edge in enumerate(step.edges):
        w.label(f"{stem}.{number}")
        emit_steps(c, edge.steps)
        w.jump(c.labels[edge.label])
