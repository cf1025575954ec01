"""Ops that only rearrange: views, slices, concatenation, padding, copies."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from supernode.ir import Arg, HostType, Op, Type, Value
from supernode.ops.formula import Dim, Dims, Formula, alike_but, regroup, shape_of
from supernode.ops.row import (
    Row,
    Split,
    free,
    linear_in,
    linear_in_all,
    same,
    sized,
    streaming,
    with_arg,
)

Rule = Callable[[Op], Formula]
Local = Callable[[Op, Split, tuple[Type, ...]], Op]

END = 2**63 - 1
"""Where a slice stops that has no end."""
ROWS_BACKWARD = "local.slice_backward"
"""The reverse of a slice of rows at their experts, whose number the run knows: told is the size of
the sliced dim alone."""
_SQUEEZES = ("squeeze", "squeeze.dim", "squeeze.dims")


def _names(rank: int) -> list[str]:
    return [f"i{k}" for k in range(rank)]


def _formula(op: Op, ins: Sequence[Dims], outs: Sequence[Dims]) -> Formula:
    sizes: dict[str, int] = {}
    for value, dims in zip((*op.inputs, *op.outputs), (*ins, *outs), strict=True):
        for dim, size in zip(dims, shape_of(value), strict=True):
            if len(dim) == 1:
                sizes[dim[0]] = size
    return Formula(inputs=tuple(ins), outputs=tuple(outs), sizes=sizes)


def _reshape(op: Op) -> Formula:
    source, target, sizes = regroup(shape_of(op.inputs[0]), shape_of(op.outputs[0]))
    return Formula(inputs=(source,), outputs=(target,), sizes=sizes)


def _int(arg: object, default: int = 0) -> int:
    return arg if isinstance(arg, int) else default


def _permuted(order: Callable[[Op, int], list[int]]) -> Rule:
    def rule(op: Op) -> Formula:
        names = _names(len(shape_of(op.inputs[0])))
        source = tuple((name,) for name in names)
        target = tuple((names[k],) for k in order(op, len(names)))
        return _formula(op, [source], [target])

    return rule


def _transpose(op: Op, rank: int) -> list[int]:
    order = list(range(rank))
    a, b = _int(op.arg(1)) % rank, _int(op.arg(2)) % rank
    order[a], order[b] = order[b], order[a]
    return order


def _permute(op: Op, rank: int) -> list[int]:
    dims = op.arg(1, "dims")
    assert isinstance(dims, tuple)
    return [_int(dim) % rank for dim in dims]


def _expand(op: Op) -> Formula:
    source, target = shape_of(op.inputs[0]), shape_of(op.outputs[0])
    names = _names(len(target))
    offset = len(target) - len(source)
    kept = tuple(
        (names[k + offset],) if size == target[k + offset] else () for k, size in enumerate(source)
    )
    return _formula(op, [kept], [tuple((name,) for name in names)])


def _slice(op: Op) -> Formula:
    rank, dim = len(shape_of(op.inputs[0])), _int(op.arg(1, "dim"))
    return _stretch(op, dim % rank, op.args[2:], backward=False)


def _slice_backward(op: Op) -> Formula:
    rank, dim = len(shape_of(op.outputs[0])), _int(op.arg(2))
    return _stretch(op, dim % rank, op.args[3:], backward=True)


def _stretch(op: Op, dim: int, args: tuple[Arg, ...], *, backward: bool) -> Formula:
    """One stretch of a dim, split together with the rest where the arguments tell for any size
    where it starts; or every so many of it, one of each group."""
    sides = [op.inputs[0], op.outputs[0]]
    piece, whole = sides if backward else sides[::-1]
    if shape_of(whole) == shape_of(piece):
        return alike_but(op, set())
    start, stop, step = _bounds(args)
    size, length = shape_of(whole)[dim], shape_of(piece)[dim]
    if 0 <= start < step and step > 1 and stop in (size, END) and size == step * length > step:
        return _every(whole, dim, step, backward=backward)
    told = start == 0 or stop == END or start + length == stop
    if step != 1 or start < 0 or not told:
        return alike_but(op, {dim})
    of_whole, (of_piece,), sizes, stretches = _in_stretches(whole, dim, [(piece, start)])
    ins, outs = (of_piece, of_whole) if backward else (of_whole, of_piece)
    return Formula(inputs=(ins,), outputs=(outs,), sizes=sizes, stretches=stretches)


def _every(whole: Value, dim: int, step: int, *, backward: bool) -> Formula:
    """One of each group of `step` along a dim: groups are split."""
    names, shape = _names(len(shape_of(whole))), shape_of(whole)
    sizes = dict(zip(names, shape, strict=True)) | {names[dim]: shape[dim] // step, "of": step}
    piece: Dims = tuple((name,) for name in names)
    groups: Dims = (*piece[:dim], (names[dim], "of"), *piece[dim + 1 :])
    ins, outs = (piece, groups) if backward else (groups, piece)
    return Formula(inputs=(ins,), outputs=(outs,), sizes=sizes, whole=frozenset({"of"}))


def _bounds(args: tuple[Arg, ...]) -> tuple[int, int, int]:
    start, stop, step = (*args, None, None, None)[:3]
    return _int(start), _int(stop, END), _int(step, 1)


def _local_bounds(args: tuple[Arg, ...], whole: int, length: int) -> tuple[int, ...]:
    """Where a stretch starts and stops in what a chip has of the whole: all scale alike."""
    start, stop, step = _bounds(args)
    if step > 1:
        return start, END, step
    if start and stop == END:
        start = whole - length
    elif start:
        start = start * length // (stop - start)
    return start, start + length


def _local_slice(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    dim = _int(op.arg(1, "dim")) % len(shape_of(op.inputs[0]))
    if f"i{dim}" not in split:
        return op
    sizes = shape_of(op.inputs[0])[dim], shape_of(op.outputs[0])[dim]
    return replace(op, args=(op.args[0], dim, *_local_bounds(op.args[2:], *sizes)))


def _local_slice_backward(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    shape = shape_of(op.outputs[0])
    dim = _int(op.arg(2)) % len(shape)
    bounds = op.args[3:]
    if f"i{dim}" in split:
        start, stop, *step = _local_bounds(bounds, shape[dim], shape_of(op.inputs[0])[dim])
        bounds = start, stop, *(step or (1,))
    if op.name == ROWS_BACKWARD or any("~" in each for cuts in split.values() for each in cuts):
        return replace(op, name=ROWS_BACKWARD, args=(op.args[0], shape[dim], dim, *bounds))
    return replace(op, args=(op.args[0], shape, dim, *bounds))


def _in_stretches(
    whole: Value, dim: int, pieces: Sequence[tuple[Value, int]]
) -> tuple[Dims, list[Dims], dict[str, int], dict[str, dict[str, int]]]:
    """Dims of a value and of pieces of it that start at these places along a dim; sizes of all
    factors; which factors are stretches of which, none where one can't be cut."""
    shape = shape_of(whole)
    names = _names(len(shape))
    sizes = dict(zip(names, shape, strict=True))
    lengths = {f"s{k}": shape_of(piece)[dim] for k, (piece, _) in enumerate(pieces)}
    cut = min(lengths.values(), default=0) > 1

    def along(name: str) -> Dims:
        return tuple(((name,) if cut else ()) if k == dim else (n,) for k, n in enumerate(names))

    starts = {f"s{k}": start for k, (_, start) in enumerate(pieces)}
    return (
        along(names[dim]),
        [along(name) for name in lengths],
        sizes | lengths,
        {names[dim]: starts} if cut else {},
    )


def _split(op: Op) -> Formula:
    shape = shape_of(op.inputs[0])
    dim = _int(op.arg(2, "dim")) % len(shape)
    of_whole, of_pieces, sizes, stretches = _in_stretches(
        op.inputs[0], dim, _behind_each_other(op.outputs, dim)
    )
    return Formula(inputs=(of_whole,), outputs=tuple(of_pieces), sizes=sizes, stretches=stretches)


def _behind_each_other(values: Sequence[Value], dim: int) -> list[tuple[Value, int]]:
    ends = accumulate((shape_of(value)[dim] for value in values), initial=0)
    return list(zip(values, ends, strict=False))


def _local_split(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    dim = _int(op.arg(2, "dim")) % len(shape_of(op.inputs[0]))
    if f"i{dim}" not in split:
        return op
    lengths = tuple(shape_of(value)[dim] for value in op.outputs)
    return with_arg(op, 1, lengths if "with_sizes" in op.name else lengths[0])


def _along(position: int, name: str = "dim") -> Rule:
    def rule(op: Op) -> Formula:
        rank = len(shape_of(op.outputs[0]))
        return alike_but(op, {_int(op.arg(position, name)) % rank})

    return rule


def _cat(op: Op) -> Formula:
    rank = len(shape_of(op.outputs[0]))
    dim = _int(op.arg(1, "dim")) % rank
    if any(len(shape_of(value)) != rank for value in op.inputs):
        # Of old, an empty tensor of one dim joins tensors of any rank.
        joined = tuple(() if k == dim else (f"i{k}",) for k in range(rank))
        ins = [joined if len(shape_of(value)) == rank else ((),) for value in op.inputs]
        return _formula(op, ins, [joined])
    of_whole, of_pieces, sizes, stretches = _in_stretches(
        op.outputs[0], dim, _behind_each_other(op.inputs, dim)
    )
    return Formula(inputs=tuple(of_pieces), outputs=(of_whole,), sizes=sizes, stretches=stretches)


def _pad(op: Op) -> Formula:
    pads = op.arg(1, "pad")
    assert isinstance(pads, tuple)
    rank = len(shape_of(op.outputs[0]))
    return alike_but(op, {rank - 1 - k // 2 for k, pad in enumerate(pads) if pad})


def _repeat(op: Op) -> Formula:
    """Whole repetitions may be split: they are outermost."""
    source, target = shape_of(op.inputs[0]), shape_of(op.outputs[0])
    source = (1,) * (len(target) - len(source)) + source
    ins: list[Dim] = []
    outs: list[Dim] = []
    sizes: dict[str, int] = {}
    for k, (old, new) in enumerate(zip(source, target, strict=True)):
        sizes |= {f"i{k}": old, f"r{k}": new // max(old, 1)}
        repeated = () if new == old else (f"r{k}",)
        ins.append((f"i{k}",) if old > 1 else ())
        outs.append(repeated + ins[-1])
    skipped = len(target) - len(shape_of(op.inputs[0]))
    return Formula(inputs=(tuple(ins[skipped:]),), outputs=(tuple(outs),), sizes=sizes)


def _repeated(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    (out,) = outputs
    assert not isinstance(out, HostType)
    source = shape_of(op.inputs[0])
    source = (1,) * (len(out.shape) - len(source)) + source
    return with_arg(op, 1, tuple(b // max(a, 1) for a, b in zip(source, out.shape, strict=True)))


def _stack(op: Op) -> Formula:
    names = _names(len(shape_of(op.inputs[0])))
    dim = _int(op.arg(1, "dim")) % (len(names) + 1)
    source = tuple((name,) for name in names)
    return _formula(op, [source] * len(op.inputs), [(*source[:dim], (), *source[dim:])])


def _select(op: Op) -> Formula:
    rank = len(shape_of(op.inputs[0]))
    dim = _int(op.arg(1, "dim")) % rank
    source: Dims = tuple(() if k == dim else (f"i{k}",) for k in range(rank))
    return _formula(op, [source], [(*source[:dim], *source[dim + 1 :])])


def _select_backward(op: Op) -> Formula:
    rank = len(shape_of(op.outputs[0]))
    dim = _int(op.arg(2)) % rank
    target: Dims = tuple(() if k == dim else (f"i{k}",) for k in range(rank))
    return _formula(op, [(*target[:dim], *target[dim + 1 :])], [target])


def _unbind(op: Op) -> Formula:
    rank = len(shape_of(op.inputs[0]))
    dim = _int(op.arg(1, "dim")) % rank
    source: Dims = tuple(() if k == dim else (f"i{k}",) for k in range(rank))
    return _formula(op, [source], [(*source[:dim], *source[dim + 1 :])] * len(op.outputs))


def _select_scatter(op: Op) -> Formula:
    rank = len(shape_of(op.outputs[0]))
    dim = _int(op.arg(2, "dim")) % rank
    whole: Dims = tuple(() if k == dim else (f"i{k}",) for k in range(rank))
    return _formula(op, [whole, (*whole[:dim], *whole[dim + 1 :])], [whole])


def _same_dims(op: Op) -> Formula:
    return alike_but(op, set())


def _reshaped(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    """A piece may have one element where the whole has more: to squeeze it would drop the dim."""
    (out,) = outputs
    assert not isinstance(out, HostType)
    return replace(op, name="aten.reshape", args=(op.args[0], out.shape))


def _view(name: str, formula: Rule, *, local: Local = same, sizes: bool | None = None) -> Row:
    return Row(
        name=name,
        formula=formula,
        cost=free,
        linear=linear_in((0,)),
        local=local,
        moves=True,
        view=True,
        sizes=sizes,
        note="a view: nothing is computed, nothing moves",
    )


def _move(name: str, formula: Rule, *, local: Local = same, sizes: bool | None = None) -> Row:
    return Row(
        name=name,
        formula=formula,
        cost=streaming(0),
        linear=linear_in_all,
        local=local,
        moves=True,
        sizes=sizes,
        note="a copy: each byte is read and written once",
    )


VIEWS = [
    _view("aten.view", _reshape, local=sized(1)),
    _view("aten._unsafe_view", _reshape, local=sized(1)),
    _view("aten.reshape", _reshape, local=sized(1)),
    _view("aten.unsqueeze", _reshape),
    *(_view(f"aten.{name}", _reshape, local=_reshaped) for name in _SQUEEZES),
    _view("aten.t", _permuted(lambda op, rank: list(range(rank))[::-1])),
    _view("aten.transpose.int", _permuted(_transpose)),
    _view("aten.permute", _permuted(_permute)),
    _view("aten.expand", _expand, local=sized(1)),
    _view("aten.slice.Tensor", _slice, local=_local_slice, sizes=False),
    _view("aten.select.int", _select),
    _view("aten.unbind.int", _unbind),
    *(
        _view(f"aten.{unsafe}{name}", _split, local=_local_split, sizes=False)
        for unsafe in ("", "unsafe_")
        for name in ("split.Tensor", "split_with_sizes")
    ),
    _view("aten.detach", _same_dims),
    _view("aten.alias", _same_dims),
]

MOVES = [
    _move("aten.clone", _same_dims),
    _move("aten.lift_fresh_copy", _same_dims),
    _move("aten.cat", _cat),
    _move("aten.stack", _stack),
    _move("aten.repeat", _repeat, local=_repeated),
    *(
        _move(name, _slice_backward, local=_local_slice_backward, sizes=False)
        for name in ("aten.slice_backward", ROWS_BACKWARD)
    ),
    _move("aten.select_backward", _select_backward, local=sized(1)),
    _move("aten.slice_scatter", _along(2)),
    _move("aten.select_scatter", _select_scatter),
]

# Padding with a value other than zero is affine, so partial sums don't pass.
PADS = [
    Row(
        name="aten.constant_pad_nd",
        formula=_pad,
        cost=streaming(0),
        linear=lambda op: ((0,),) if op.arg(2, "value", 0) == 0 else (),
        local=same,
        note="a copy with a border",
    )
]

ROWS = [*VIEWS, *MOVES, *PADS]
