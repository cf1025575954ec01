"""Ops that only rearrange: views, slices, concatenation, padding, copies."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from supernode.ir import HostType, Op, Type
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
    changed = shape_of(op.inputs[0]) != shape_of(op.outputs[0])
    rank = len(shape_of(op.inputs[0]))
    return alike_but(op, {_int(op.arg(1, "dim")) % rank} if changed else set())


def _slice_backward(op: Op) -> Formula:
    changed = shape_of(op.inputs[0]) != shape_of(op.outputs[0])
    rank = len(shape_of(op.outputs[0]))
    return alike_but(op, {_int(op.arg(2)) % rank} if changed else set())


def _along(position: int, name: str = "dim") -> Rule:
    def rule(op: Op) -> Formula:
        rank = len(shape_of(op.outputs[0]))
        return alike_but(op, {_int(op.arg(position, name)) % rank})

    return rule


def _cat(op: Op) -> Formula:
    rank = len(shape_of(op.outputs[0]))
    dim = _int(op.arg(1, "dim")) % rank
    joined = tuple(() if k == dim else (f"i{k}",) for k in range(rank))
    # Of old, an empty tensor of one dim joins tensors of any rank.
    ins = [joined if len(shape_of(value)) == rank else ((),) for value in op.inputs]
    return _formula(op, ins, [joined])


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


def _view(name: str, formula: Rule, *, local: Local = same) -> Row:
    return Row(
        name=name,
        formula=formula,
        cost=free,
        linear=linear_in((0,)),
        local=local,
        moves=True,
        view=True,
        note="a view: nothing is computed, nothing moves",
    )


def _move(name: str, formula: Rule, *, local: Local = same) -> Row:
    return Row(
        name=name,
        formula=formula,
        cost=streaming(0),
        linear=linear_in_all,
        local=local,
        moves=True,
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
    _view("aten.slice.Tensor", _slice),
    _view("aten.select.int", _select),
    _view("aten.unbind.int", _unbind),
    _view("aten.split.Tensor", _along(2)),
    _view("aten.split_with_sizes", _along(2)),
    _view("aten.unsafe_split.Tensor", _along(2)),
    _view("aten.unsafe_split_with_sizes", _along(2)),
    _view("aten.detach", _same_dims),
    _view("aten.alias", _same_dims),
]

MOVES = [
    _move("aten.clone", _same_dims),
    _move("aten.lift_fresh_copy", _same_dims),
    _move("aten.cat", _cat),
    _move("aten.stack", _stack),
    _move("aten.repeat", _repeat, local=_repeated),
    _move("aten.slice_backward", _slice_backward, local=sized(1)),
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
