"""Running sums over the parts of an axis of time, and pieces of what all parts share."""

from collections.abc import Callable, Collection, Sequence

from supernode.ir import CALL, Arg, DType, Op, Site, TensorType, Type, Value

Fresh = Callable[[Type], Value]

_COMBINE = {"sum": "aten.add.Tensor", "max": "aten.maximum", "min": "aten.minimum"}
_NARROW = ("bfloat16", "float16")


def wide(type_: TensorType) -> TensorType:
    """The type in which parts are added up: float32 at least, as the ops themselves do inside."""
    return TensorType("float32", type_.shape) if type_.dtype in _NARROW else type_


def combined(before: Value | None, part: Value, kind: str, site: Site, fresh: Fresh) -> list[Op]:
    """The ops that add `part` to what there is `before`; the last one's output is the result.

    There are none where the first part itself is the result.
    """
    if kind != "sum":
        if before is None:
            return []
        return [_op(_COMBINE[kind], (before, part), fresh(part.type), site)]
    type_ = wide(part.tensor)
    if before is not None:
        return [_op(_COMBINE[kind], (before, part), fresh(type_), site)]
    return [] if type_ == part.type else [_cast(part, fresh(type_), site)]


def put_off(ops: Sequence[Op], late: Collection[int]) -> list[int]:
    """An order of `ops` in which those at the places `late` come behind the next call of backward,
    or before what reads them.

    These wait for a message: meanwhile that call computes.
    """
    order: list[int] = []
    waiting: list[int] = []
    given: set[int] = set()
    for at, op in enumerate(ops):
        if at in late:
            waiting.append(at)
            given |= {value.id for value in op.outputs}
            continue
        if any(value.id in given for value in op.inputs):
            order += waiting
            waiting, given = [], set[int]()
        order.append(at)
        if op.name == CALL and op.site.phase == "backward":
            order += waiting
            waiting, given = [], set[int]()
    return order + waiting


def rounded(total: Value, out: Value, site: Site) -> Op:
    """The total in the type of a part, as `out`."""
    return _cast(total, out, site)


def picked(op: Op, part: int, parts: int, out: Value) -> Op:
    """What `op`, a `local.shard` over an axis of time, gives for part number `part`."""
    source, dim, _, *units = op.args
    return _op("local.part", (source, dim, part, parts, *units), out, op.site)


def piece(source: Value, dim: Arg, part: int, parts: int, out: Value, site: Site) -> Op:
    """Part number `part` of `parts` equal ones of `source` along `dim`."""
    return _op("local.part", (source, dim, part, parts), out, site)


def _cast(source: Value, out: Value, site: Site) -> Op:
    kwargs = (("dtype", DType(out.tensor.dtype)),)
    return Op(name="aten._to_copy", args=(source,), kwargs=kwargs, outputs=(out,), site=site)


def _op(name: str, args: tuple[Arg, ...], out: Value, site: Site) -> Op:
    return Op(name=name, args=args, outputs=(out,), site=site)
