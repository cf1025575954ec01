"""Atomic read-modify-write, compare-and-swap and polling, on scalars and lane by lane on tiles."""

from ..passes.steps import AtomicRoot
from ..tile.ops import Op
from ..tile.types import ELEMS, I1, I32, I64, PTR, Elem
from . import sanitizer
from .context import Context
from .evaluate import Chunk, Index
from .lanes import Lanes
from .writer import Writer, literal

_ORDERINGS = {1: "monotonic", 2: "acquire", 3: "release", 4: "acq_rel"}


def ordering(op: Op) -> str:
    """LLVM's name of the op's memory ordering."""
    return _ORDERINGS.get(int(op.attrs.get("sem", 4)), "acq_rel")


def read_modify_write(w: Writer, op: Op, address: str, value: str, flag: str | None) -> str:
    """One element; gives the old value, zero where `flag` is false."""
    elem = op.result.type.elem
    name = op.attrs["operation"]
    if elem.is_float and name in ("max", "min"):
        name = "f" + name
    slot = w.alloca(elem.memory)
    w.do(f"store {elem.llvm} {literal(0, elem)}, ptr {slot}")
    with w.when(flag):
        old = w.let(
            f"atomicrmw {name} ptr {address}, {elem.llvm} {value} {ordering(op)},"
            f" align {elem.size_bytes}"
        )
        w.do(f"store {elem.llvm} {old}, ptr {slot}")
    return w.let(f"load {elem.llvm}, ptr {slot}")


def compare_and_swap(w: Writer, op: Op, address: str, expected: str, value: str) -> str:
    """One element; gives the old value."""
    elem = op.result.type.elem
    integer = ELEMS[f"i{elem.bits}"]
    expected = w.convert("bitcast", expected, elem, integer, 0)
    value = w.convert("bitcast", value, elem, integer, 0)
    order = ordering(op)
    failure = {"acq_rel": "acquire", "release": "monotonic"}.get(order, order)
    pair = w.let(
        f"cmpxchg ptr {address}, {integer.llvm} {expected}, {integer.llvm} {value}"
        f" {order} {failure}"
    )
    old = w.let(f"extractvalue {{ {integer.llvm}, i1 }} {pair}, 0")
    return w.convert("bitcast", old, integer, elem, 0)


def poll(w: Writer, op: Op, address: str, expected: str, timeout_ns: str | None) -> str:
    """Waits until the element has the expected value; false if the time ran out before."""
    elem = op.operands[1].type.elem
    deadline = None if timeout_ns is None else w.let(f"add i64 {_now_ns(w)}, {timeout_ns}")
    w.declare("sched_yield", "declare i32 @sched_yield()")
    stem = w.name("poll")
    w.jump(stem)
    w.label(stem)
    seen = w.let(f"load atomic {elem.llvm}, ptr {address} {ordering(op)}, align {elem.size_bytes}")
    equal = w.let(f"icmp eq {elem.llvm} {seen}, {expected}")
    w.branch(equal, f"{stem}.end", f"{stem}.again")
    w.label(f"{stem}.again")
    w.let("call i32 @sched_yield()")
    if deadline is None:
        w.jump(stem)
    else:
        w.branch(w.let(f"icmp slt i64 {_now_ns(w)}, {deadline}"), stem, f"{stem}.end")
    w.label(f"{stem}.end")
    return equal


def _now_ns(w: Writer) -> str:
    """The monotonic clock of POSIX."""
    w.declare("clock_gettime", "declare i32 @clock_gettime(i32, ptr)")
    time = w.alloca("[2 x i64]", 8)
    w.let(f"call i32 @clock_gettime(i32 1, ptr {time})")
    seconds = w.let(f"load i64, ptr {time}")
    rest = w.let(f"load i64, ptr {w.offset(I64, time, '1')}")
    return w.let(f"add i64 {w.let(f'mul i64 {seconds}, 1000000000')}, {rest}")


def _one(w: Writer, op: Op, names: list[str]) -> str:
    """One element of any of these ops."""
    third = names[2] if len(names) > 2 else None
    if op.name == "atomic_cas":
        return compare_and_swap(w, op, *names)
    if op.name == "atomic_poll":
        return poll(w, op, names[0], names[1], third)
    return read_modify_write(w, op, names[0], names[1], third)


def emit_scalar(c: Context, op: Op) -> None:
    """An atomic on a scalar pointer."""
    flag = c.lanes_of(op.operands[2]) if _has_mask(op) else None
    pointee = op.operands[1].type.elem
    sanitizer.check(c, c.lanes_of(op.operands[0]), flag, pointee, 1, op, "atomic access")
    old = _one(c.w, op, [c.scalar(value) for value in op.operands])
    if op.results:
        c.define(op.result, old)


def emit_lanes(chunk: Chunk, root: AtomicRoot, index: Index) -> None:
    """An atomic on a chunk of lanes: one after the other."""
    w, op, count = chunk.context.w, root.op, chunk.count
    operands = op.operands
    pointer = chunk.lanes(operands[0], index)
    flag = chunk.lanes(operands[2], index) if _has_mask(op) else None
    pointee = operands[1].type.elem
    sanitizer.check(chunk.context, pointer, flag, pointee, count, op, "atomic access")
    places = [_spill(w, chunk, index, position) for position in range(len(operands))]
    elem = op.result.type.elem
    out = w.alloca(f"<{count} x {elem.memory}>")
    with w.loop(count) as lane:
        names = [
            w.load(kind, w.offset(kind, place, lane, I32)) for kind, place in places_of(op, places)
        ]
        old = _one(w, op, names)
        w.store(elem, old, w.offset(elem, out, lane, I32))
    if any(along for _, along in index):
        chunk.write(root.buffer, index, Lanes(w.load(elem, out, count), elem, None))
    else:
        chunk.write(root.buffer, index, Lanes(w.load(elem, out), elem, 0))


def places_of(op: Op, places: list[str]) -> list[tuple[Elem, str]]:
    """Element kind and address of each spilled operand: pointer, values, mask."""
    kinds = [PTR] + [value.type.elem for value in op.operands[1:]]
    if _has_mask(op):
        kinds[2] = I1
    return list(zip(kinds, places, strict=True))


def _has_mask(op: Op) -> bool:
    return op.name == "atomic_rmw" and len(op.operands) > 2


def _spill(w: Writer, chunk: Chunk, index: Index, position: int) -> str:
    assert isinstance(chunk.nest.roots[-1], AtomicRoot)
    value = chunk.nest.roots[-1].op.operands[position]
    elem = value.type.elem
    place = w.alloca(f"<{chunk.count} x {elem.memory}>")
    w.store(elem, chunk.vector(value, index), place, chunk.count)
    return place
