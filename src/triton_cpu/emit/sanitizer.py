"""`TRITON_CPU_SANITIZE=1`: every access is checked against the allocation of the kernel argument
its pointer came from. Off, this writes no code."""

from ..passes.fuse import base_pointer
from ..tile.ops import Op, Region, walk
from ..tile.types import I64, Elem
from . import fault
from .context import Bounds, Context
from .lanes import Lanes, as_vector


def only_arguments(region: Region) -> bool:
    """Whether every pointer in the kernel comes from an argument: none is read from memory."""
    return not any(
        value.type.elem.is_pointer and op.name in ("load", "inttoptr", "bitcast", "extern")
        for op in walk(region)
        for value in op.results
        if op.name != "bitcast" or not op.operands[0].type.elem.is_pointer
    )


def check(
    c: Context, pointer: Lanes, mask: Lanes | None, elem: Elem, count: int, op: Op, what: str
) -> None:
    """Ends the program with a report if an enabled lane lies outside its allocation."""
    if not c.target.sanitize:
        return
    bounds = _bounds(c, op)
    if not bounds:
        return
    w = c.w
    lanes = 0 if pointer.is_uniform else count
    name = pointer.value if not lanes else as_vector(w, pointer, count)
    kind, pointers = (f"<{lanes} x i64>", f"<{lanes} x ptr>") if lanes else ("i64", "ptr")
    address = w.let(f"ptrtoint {pointers} {name} to {kind}")
    truth = f"<{lanes} x i1>" if lanes else "i1"
    outside = ""
    for one in bounds:
        away = _outside(c, address, one, elem, lanes)
        outside = w.let(f"and {truth} {outside}, {away}") if outside else away
    if mask is not None and lanes:
        outside = w.let(f"and {truth} {outside}, {as_vector(w, mask, count)}")
    elif mask is not None:
        enabled = mask.value if mask.is_uniform else _any(c, as_vector(w, mask, count), count)
        outside = w.let(f"and i1 {outside}, {enabled}")
    argument = bounds[0].argument if len(bounds) == 1 else fault.ANY
    with w.when(_any(c, outside, lanes) if lanes else outside):
        at = _first(c, outside, address, lanes) if lanes else address
        fault.record(c, op, what, at, elem.size_bytes, argument)


def _bounds(c: Context, op: Op) -> list[Bounds]:
    """The allocations an access may touch: one, where a loop or branch hands no pointers on."""
    base = base_pointer(op.operands[0])
    if base in c.bounds:
        return [c.bounds[base]]
    return list(c.bounds.values()) if c.only_arguments else []


def _outside(c: Context, address: str, bounds: Bounds, elem: Elem, lanes: int) -> str:
    w = c.w
    kind = f"<{lanes} x i64>" if lanes else "i64"
    start, end = (w.splat(I64, bound, lanes) for bound in (bounds.first, bounds.last))
    behind = w.let(f"add {kind} {address}, {w.constant(elem.size_bytes, I64, lanes)}")
    low = w.let(f"icmp ult {kind} {address}, {start}")
    high = w.let(f"icmp ugt {kind} {behind}, {end}")
    return w.let(f"or {f'<{lanes} x i1>' if lanes else 'i1'} {low}, {high}")


def _any(c: Context, flags: str, count: int) -> str:
    bits = c.w.let(f"bitcast <{count} x i1> {flags} to i{count}")
    return c.w.let(f"icmp ne i{count} {bits}, 0")


def _first(c: Context, outside: str, address: str, count: int) -> str:
    """The address of the first lane that is outside."""
    w = c.w
    bits = w.let(f"bitcast <{count} x i1> {outside} to i{count}")
    name = f"llvm.cttz.i{count}"
    w.declare(name, f"declare i{count} @{name}(i{count}, i1)")
    first = w.let(f"call i{count} @{name}(i{count} {bits}, i1 true)")
    return w.let(f"extractelement <{count} x i64> {address}, i{count} {first}")
