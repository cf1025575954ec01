"""Reading and writing at places that tensors name: the dim they point into is whole.

The other dims are free, and where elements are read, so are those of the places.
"""

from collections.abc import Callable

from supernode.ir import Op, Value
from supernode.ops.formula import Dim, Dims, Formula, bare, shape_of
from supernode.ops.row import Cost, Row, linear_in, nonlinear, same, streaming

Linear = Callable[[Op], tuple[tuple[int, ...], ...]]


def _named(shape: tuple[int, ...], dims: Dims) -> dict[str, int]:
    return {dim[0]: size for dim, size in zip(dims, shape, strict=True) if dim}


def _dim(op: Op, rank: int) -> int:
    dim = op.args[1]
    assert isinstance(dim, int)
    return dim % max(rank, 1)


def _gather(op: Op) -> Formula:
    """Elsewhere than along `dim`, an element is read at its own place."""
    x, index = map(shape_of, op.inputs)
    at = _dim(op, len(x))
    if len(x) != len(index):
        return bare(op)  # a number, or the elements of one
    shared: Dims = tuple(
        (f"i{k}",) if k != at and n == m else ()
        for k, (n, m) in enumerate(zip(x, index, strict=True))
    )
    places: Dims = tuple(("j",) if k == at else dim for k, dim in enumerate(shared))
    sizes = _named(x, shared) | _named(index, places)
    return Formula(inputs=(shared, places), outputs=(places,), sizes=sizes)


def _index(op: Op) -> Formula:
    """`x[:, i, j]`: the index tensors broadcast; their dims stand where theirs did."""
    x, indices = shape_of(op.inputs[0]), op.args[1]
    assert isinstance(indices, tuple)
    at = [k for k, index in enumerate(indices) if index is not None]
    ids = [shape_of(value) for value in op.inputs[1:]]
    if any(value.tensor.dtype in ("bool", "uint8") for value in op.inputs[1:]):
        return bare(op)
    kept: Dims = tuple((f"i{k}",) for k in range(len(x)) if k not in at)
    rank = max(map(len, ids))
    place = at[0] if at[-1] - at[0] == len(at) - 1 else 0
    picked: Dims = tuple((f"n{k}",) for k in range(rank))
    target = (*kept[:place], *picked, *kept[place:])
    sizes = {d[0]: n for d, n in zip(target, shape_of(op.outputs[0]), strict=True)}
    source: Dims = tuple(() if k in at else (f"i{k}",) for k in range(len(x)))
    dims = [
        tuple(() if n == 1 else d for d, n in zip(picked[rank - len(each) :], each, strict=True))
        for each in ids
    ]
    return Formula(inputs=(source, *dims), outputs=(target,), sizes=sizes)


def _scatter(op: Op) -> Formula:
    """A dim that all places of a row cover is shared by all, but for the one pointed into."""
    shapes = [shape_of(value) for value in (*op.inputs, *op.outputs)]
    at = _dim(op, len(shapes[0]))
    if len({len(shape) for shape in shapes}) > 1:
        return bare(op)
    dims: Dims = tuple(
        (f"i{k}",) if k != at and len(set(sizes)) == 1 else ()
        for k, sizes in enumerate(zip(*shapes, strict=True))
    )
    return Formula(inputs=(dims,) * len(op.inputs), outputs=(dims,), sizes=_named(shapes[0], dims))


def _index_select(op: Op) -> Formula:
    x, index = map(shape_of, op.inputs)
    at = _dim(op, len(x))
    if not x or not index:
        return bare(op)
    source: Dims = tuple(() if k == at else (f"i{k}",) for k in range(len(x)))
    target: Dims = tuple(("j",) if k == at else dim for k, dim in enumerate(source))
    sizes = _named(x, source) | {"j": index[0]}
    return Formula(inputs=(source, (("j",),)), outputs=(target,), sizes=sizes)


def _index_add(op: Op) -> Formula:
    """`index` has one dim; what is written has the rank of what it is written to."""
    x, _, source = map(shape_of, op.inputs)
    if not x or len(x) != len(source):
        return bare(op)
    at = _dim(op, len(x))
    dims: Dims = tuple(() if k == at else (f"i{k}",) for k in range(len(x)))
    return Formula(inputs=(dims, ((),), dims), outputs=(dims,), sizes=_named(x, dims))


def _index_put(op: Op) -> Formula:
    """`x[:, i, j] = values`: dims without an index are those of the values too."""
    indices = op.args[1]
    assert isinstance(indices, tuple)
    places = [index for index in indices if isinstance(index, Value)]
    if any(index.tensor.dtype in ("bool", "uint8") for index in places):
        return _put_where(op, indices)
    x = shape_of(op.inputs[0])
    at = [k for k, index in enumerate(indices) if index is not None]
    dims: Dims = tuple(() if k in at else (f"i{k}",) for k in range(len(x)))
    kept = [dim for dim in dims if dim]
    rank = max(len(shape_of(index)) for index in places)
    front = at[0] if at[-1] - at[0] == len(at) - 1 else 0
    full: list[Dim] = [*kept[:front], *[()] * rank, *kept[front:]]
    values = shape_of(op.inputs[-1])
    written = tuple(
        dim if size > 1 else ()
        for dim, size in zip(full[len(full) - len(values) :], values, strict=True)
    )
    ins = (dims, *(((),) * len(shape_of(index)) for index in places), written)
    return Formula(inputs=ins, outputs=(dims,), sizes=_named(x, dims))


def _put_where(op: Op, indices: tuple[object, ...]) -> Formula:
    """`x[mask] = number` is pointwise; several values would be taken one after another."""
    x, values = op.inputs[0], op.inputs[-1]
    if len(op.inputs) != 3 or indices[0] is None or values.tensor.numel != 1:
        return bare(op)
    dims: Dims = tuple((f"i{k}",) for k in range(len(shape_of(x))))
    mask = dims[: len(shape_of(op.inputs[1]))]
    ins = (dims, mask, ((),) * len(shape_of(values)))
    return Formula(inputs=ins, outputs=(dims,), sizes=_named(shape_of(x), dims))


def _bucketize(op: Op) -> Formula:
    dims: Dims = tuple((f"i{k}",) for k in range(len(shape_of(op.inputs[0]))))
    sizes = _named(shape_of(op.inputs[0]), dims)
    return Formula(inputs=(dims, ((),)), outputs=(dims,), sizes=sizes)


def _read_cost(op: Op) -> Cost:
    """Of the first input, no more is read than there is output."""
    x, out = op.inputs[0].tensor, op.outputs[0].tensor
    rest = sum(value.type.size_bytes for value in dict.fromkeys(op.inputs[1:]))
    return Cost(0.0, min(x.size_bytes, out.size_bytes) + rest, out.size_bytes, "vector", x.dtype)


def _where_zero(op: Op) -> tuple[tuple[int, ...], ...]:
    """Writing a number is linear in the rest where that number is zero."""
    return ((0,),) if op.args[3] == 0 and not isinstance(op.args[3], Value) else ()


def _where_summed(op: Op) -> tuple[tuple[int, ...], ...]:
    return ((0, 2),) if op.args[4] == "sum" else ()


def _first_and_last(op: Op) -> tuple[tuple[int, ...], ...]:
    return ((0, len(op.inputs) - 1),)


def _write_cost(op: Op) -> Cost:
    """What is written in place: the new rows and where they go, not the rest.

    A recorded write is a write of memory that nothing reads afterwards, or it was no step of a user
    (`plan.inplace` runs it so): a cache is not copied to remember one more token.
    """
    base, *rest = (value.type for value in op.inputs)
    read = float(sum(type_.size_bytes for type_ in rest))
    return Cost(0.0, read, float(rest[-1].size_bytes), "vector", base.dtype)


_COPY = streaming(0)


def _row(
    name: str,
    formula: Callable[[Op], Formula],
    linear: Linear,
    note: str,
    cost: Callable[[Op], Cost] = _COPY,
) -> Row:
    return Row(name=name, formula=formula, cost=cost, linear=linear, local=same, note=note)


_BOTH = linear_in((0, 2))

ROWS = [
    _row("aten.gather", _gather, linear_in((0,)), "x[i, index[i, j]]", _read_cost),
    _row(
        "aten.index.Tensor",
        _index,
        linear_in((0,)),
        "a mask as an index gives a shape that depends on data, so it stays whole",
        _read_cost,
    ),
    _row("aten.index_select", _index_select, linear_in((0,)), "x[:, index]", _read_cost),
    _row("aten.scatter.src", _scatter, _BOTH, "a copy with other elements at some places"),
    _row("aten.scatter.value", _scatter, _where_zero, "a copy with a number at some places"),
    _row("aten.scatter_add", _scatter, _BOTH, "a copy with something added at some places"),
    _row("aten.scatter_reduce.two", _scatter, _where_summed, "a copy with some places combined"),
    _row("aten.index_add", _index_add, _BOTH, "a copy with rows added to some rows"),
    _row(
        "aten.index_copy",
        _index_add,
        _BOTH,
        "other rows at some places, written in place",
        _write_cost,
    ),
    _row("aten.index_put", _index_put, _first_and_last, "x[:, i, j] = values, or += values"),
    _row("aten.bucketize.Tensor", _bucketize, nonlinear, "each chip knows all boundaries"),
]
