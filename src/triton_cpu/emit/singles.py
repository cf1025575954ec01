"""Ops that run by themselves: on scalars, or on tiles that lie in buffers."""

from collections.abc import Callable

from ..errors import UnsupportedOp, cause, placed
from ..tile.ops import Op
from ..tile.types import I1
from . import atomics, fault, memory, output, rearrange, scan
from .context import Context
from .dot import emit_dot
from .dot_scaled import emit_dot_scaled
from .elementwise import Apply, apply
from .lanes import factor_of
from .writer import literal


def emit_single(c: Context, op: Op) -> None:
    """Writes one op; a failure names it and the kernel's line."""
    try:
        handler = _HANDLERS.get(op.name)
        if handler is not None:
            handler(c, op)
        elif op.is_elementwise:
            _elementwise(c, op)
        else:
            raise UnsupportedOp(f"The CPU backend can't run {op.name}.")
    except Exception as error:
        raise placed(error, f"{op.name}, {op.location}") from cause(error)


def _elementwise(c: Context, op: Op) -> None:
    args = [c.scalar(value) for value in op.operands]
    kinds = [value.type.elem for value in op.operands]
    kind = op.result.type
    factor, positive = c.scalar_factor(op)
    name = apply(
        c.w, Apply(op.name, op.attrs, args, kinds, kind.elem, 0, kind.pointee, c.target.contract)
    )
    c.define(op.result, name, factor, positive)


def _const(c: Context, op: Op) -> None:
    elem, value = op.result.type.elem, op.attrs["value"]
    integer = elem.is_int and elem.bits > 1
    c.define(op.result, literal(value, elem), factor_of(int(value)) if integer else 1)


def _poison(c: Context, op: Op) -> None:
    elem = op.result.type.elem
    c.define(op.result, c.w.let(f"freeze {elem.llvm} poison"))


def _program_id(c: Context, op: Op) -> None:
    c.define(op.result, f"%pid{op.attrs['axis']}", 1, True)


def _num_programs(c: Context, op: Op) -> None:
    c.define(op.result, f"%grid{op.attrs['axis']}", 1, True)


def _load(c: Context, op: Op) -> None:
    pointer, mask, other = memory.load_operands(op)
    lanes = [None if one is None else c.lanes_of(one) for one in (pointer, mask, other)]
    assert lanes[0] is not None
    loaded = memory.load(c, lanes[0], lanes[1], lanes[2], op.result.type.elem, 1, op)
    c.define(op.result, loaded.value)


def _store(c: Context, op: Op) -> None:
    pointer, value = (c.lanes_of(one) for one in op.operands[:2])
    mask = c.lanes_of(op.operands[2]) if len(op.operands) > 2 else None
    memory.check_one(c, pointer, mask, op)
    memory.store_one(c, pointer.value, value.value, mask, op.operands[1].type.elem)


def _assume(c: Context, op: Op) -> None:
    if not op.operands[0].type.is_tile:
        c.w.declare("llvm.assume", "declare void @llvm.assume(i1)")
        c.w.do(f"call void @llvm.assume(i1 {c.scalar(op.operands[0])})")


def _unsplat(c: Context, op: Op) -> None:
    buffer = c.buffer_of(op.operands[0])
    c.define(op.result, c.read(buffer, ["0"] * len(buffer.shape)))


def _assert(c: Context, op: Op) -> None:
    message = str(op.attrs.get("message", ""))
    condition = op.operands[0]
    if not condition.type.is_tile:
        failed = c.w.let(f"xor i1 {c.scalar(condition)}, true")
        with c.w.when(failed):
            fault.record(c, op, message)
        return
    with rearrange.each(c, condition.type.dims) as index:
        failed = c.w.let(f"xor {I1.llvm} {c.read(c.buffer_of(condition), index)}, true")
        with c.w.when(failed):
            fault.record(c, op, message)


_HANDLERS: dict[str, Callable[[Context, Op], None]] = {
    "const": _const,
    "poison": _poison,
    "program_id": _program_id,
    "num_programs": _num_programs,
    "load": _load,
    "store": _store,
    "assume": _assume,
    "unsplat": _unsplat,
    "assert": _assert,
    "print": output.emit_print,
    "atomic_rmw": atomics.emit_scalar,
    "atomic_cas": atomics.emit_scalar,
    "atomic_poll": atomics.emit_scalar,
    "scan": scan.emit_scan,
    "gather": rearrange.emit_gather,
    "histogram": rearrange.emit_histogram,
    "map_elementwise": rearrange.emit_map,
    "dot": emit_dot,
    "dot_scaled": emit_dot_scaled,
}
