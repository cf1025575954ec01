"""`TRITON_CPU_SANITIZE=1`: every access is checked against the allocation of the kernel argument
its pointer came from. Off, this writes no code."""

from ..passes.fuse import base_pointer
from ..tile.ops import Op
from ..tile.types import I64, Elem
from . import fault
from .context import Context
from .lanes import Lanes, as_vector


def check(
    c: Context, pointer: Lanes, mask: Lanes | None, elem: Elem, count: int, op: Op, what: str
) -> None:
    """Ends the program with a report if an enabled lane lies outside its allocation."""
    if not c.target.sanitize:
        return
    bounds = c.bounds.get(base_pointer(op.operands[0]))
    if bounds is None:
        return
    w = c.w
    lanes = 0 if pointer.is_uniform else count
    start, end = (w.splat(I64, bound, lanes) for bound in bounds)
    name = pointer.value if not lanes else as_vector(w, pointer, count)
    kind, pointers = (f"<{lanes} x i64>", f"<{lanes} x ptr>") if lanes else ("i64", "ptr")
    address = w.let(f"ptrtoint {pointers} {name} to {kind}")
    behind = w.let(f"add {kind} {address}, {w.constant(elem.size_bytes, I64, lanes)}")
    low, high = (
        w.let(f"icmp ult {kind} {address}, {start}"),
        w.let(f"icmp ugt {kind} {behind}, {end}"),
    )
    truth = f"<{lanes} x i1>" if lanes else "i1"
    outside = w.let(f"or {truth} {low}, {high}")
    if mask is not None and lanes:
        outside = w.let(f"and {truth} {outside}, {as_vector(w, mask, count)}")
    elif mask is not None and mask.is_uniform:
        outside = w.let(f"and i1 {outside}, {mask.value}")
    elif mask is not None:
        outside = w.let(f"and i1 {outside}, {_any(c, as_vector(w, mask, count), count)}")
    if lanes:
        _report_lane(c, outside, address, start=bounds[0], count=count, elem=elem, op=op, what=what)
        return
    offset = w.let(f"sub i64 {address}, {bounds[0]}")
    with w.when(outside):
        fault.record(c, op, f"{what} outside its allocation", offset, elem.size_bytes)


def _any(c: Context, flags: str, count: int) -> str:
    bits = c.w.let(f"bitcast <{count} x i1> {flags} to i{count}")
    return c.w.let(f"icmp ne i{count} {bits}, 0")


def _report_lane(
    c: Context, outside: str, address: str, *, start: str, count: int, elem: Elem, op: Op, what: str
) -> None:
    w = c.w
    with w.when(_any(c, outside, count)):
        bits = w.let(f"bitcast <{count} x i1> {outside} to i{count}")
        name = f"llvm.cttz.i{count}"
        w.declare(name, f"declare i{count} @{name}(i{count}, i1)")
        first = w.let(f"call i{count} @{name}(i{count} {bits}, i1 true)")
        at = w.let(f"extractelement <{count} x i64> {address}, i{count} {first}")
        offset = w.let(f"sub i64 {at}, {start}")
        fault.record(c, op, f"{what} outside its allocation", offset, elem.size_bytes)
