"""Softmax and layer normalisation: the normalised dim is whole unless expanded."""

from dataclasses import replace

from supernode.ir import Arg, DType, Op, TensorType, Value
from supernode.ops.formula import Dims, Formula, from_template, shape_of
from supernode.ops.row import Fresh, Row, linear_in, nonlinear, same, streaming


def _softmax_like(op: Op) -> Formula:
    rank = len(shape_of(op.outputs[0]))
    dim = next(arg for arg in op.args if isinstance(arg, int))
    dims: Dims = tuple((f"i{k}",) for k in range(rank))
    sizes = {f"i{k}": size for k, size in enumerate(shape_of(op.outputs[0]))}
    return Formula(
        inputs=(dims,) * len(op.inputs),
        outputs=(dims,),
        sizes=sizes,
        whole=frozenset({f"i{dim % rank}"}),
    )


def _expand_log_softmax(op: Op, fresh: Fresh) -> list[Op]:
    """x - max - log(sum(exp(x - max))), each step of which may be split."""
    x, dim, half_to_float = op.args
    assert isinstance(x, Value)
    assert isinstance(dim, int)
    out = op.outputs[0]
    ops: list[Op] = []

    def emit(name: str, type_: TensorType, *args: Arg, **kwargs: Arg) -> Value:
        value = fresh(type_)
        items = tuple(kwargs.items())
        ops.append(replace(op, name=name, args=args, kwargs=items, outputs=(value,)))
        return value

    full = out.tensor
    if half_to_float:
        x = emit("aten._to_copy", full, x, dtype=DType(full.dtype))
    thin = TensorType(full.dtype, _with_one(full.shape, dim))
    top = emit("aten.amax", thin, x, (dim,), True)
    centred = emit("aten.sub.Tensor", full, x, top)
    total = emit("aten.sum.dim_IntList", thin, emit("aten.exp", full, centred), (dim,), True)
    log = emit("aten.log", thin, total)
    ops.append(replace(op, name="aten.sub.Tensor", args=(centred, log), kwargs=()))
    return ops


def _expand_log_softmax_backward(op: Op, fresh: Fresh) -> list[Op]:
    """grad - exp(output) * sum(grad)."""
    grad, output, dim, _ = op.args
    assert isinstance(grad, Value)
    assert isinstance(output, Value)
    assert isinstance(dim, int)
    full = grad.tensor
    thin = TensorType(full.dtype, _with_one(full.shape, dim))
    total, weights, share, out = fresh(thin), fresh(full), fresh(full), fresh(full)
    steps = [
        replace(op, name="aten.sum.dim_IntList", args=(grad, (dim,), True), outputs=(total,)),
        replace(op, name="aten.exp", args=(output,), outputs=(weights,)),
        replace(op, name="aten.mul.Tensor", args=(weights, total), outputs=(share,)),
    ]
    last = replace(op, name="aten.sub.Tensor", args=(grad, share))
    if op.outputs[0].type == full:
        return [*steps, last]
    cast = replace(
        op,
        name="aten._to_copy",
        args=(out,),
        kwargs=(("dtype", DType(op.outputs[0].tensor.dtype)),),
    )
    return [*steps, replace(last, outputs=(out,)), cast]


def _with_one(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    dim %= len(shape)
    return (*shape[:dim], 1, *shape[dim + 1 :])


def _layer_norm(op: Op) -> Formula:
    rows, cols = _norm_letters(op, op.inputs[0])
    x, affine = f"{rows} {cols}", cols
    ones = " ".join("1" for _ in cols.split())
    weights = f", {affine}" * (len(op.inputs) - 1)
    template = f"{x}{weights} -> {x}, {rows} {ones}, {rows} {ones}"
    return from_template(op, template, whole=cols)


def _layer_norm_backward(op: Op) -> Formula:
    rows, cols = _norm_letters(op, op.inputs[0])
    ones = " ".join("1" for _ in cols.split())
    x, stat = f"{rows} {cols}", f"{rows} {ones}"
    weights = f", {cols}" * (len(op.inputs) - 4)
    mask = op.arg(7)
    assert isinstance(mask, tuple)
    # A gradient that was not asked for is no output.
    grads = zip((x, cols, cols), mask, strict=True)
    outs = ", ".join(dims for dims, asked in grads if asked)
    return from_template(op, f"{x}, {x}, {stat}, {stat}{weights} -> {outs}", whole=cols)


def _norm_letters(op: Op, x: Value) -> tuple[str, str]:
    normalised = next(arg for arg in op.args if isinstance(arg, tuple))
    rank = len(shape_of(x))
    split = rank - len(normalised)
    return " ".join(f"r{k}" for k in range(split)), " ".join(f"c{k}" for k in range(split, rank))


ROWS = [
    Row(
        name="aten._log_softmax",
        formula=_softmax_like,
        cost=streaming(10),
        linear=nonlinear,
        local=same,
        expand=_expand_log_softmax,
        note="max, subtract, exp, sum, log, subtract",
    ),
    Row(
        name="aten._softmax",
        formula=_softmax_like,
        cost=streaming(10),
        linear=nonlinear,
        local=same,
        note="max, subtract, exp, sum, divide",
    ),
    Row(
        name="aten._log_softmax_backward_data",
        formula=_softmax_like,
        cost=streaming(10),
        linear=linear_in((0,)),
        local=same,
        expand=_expand_log_softmax_backward,
        note="grad - exp(output) * sum(grad)",
    ),
    Row(
        name="aten._softmax_backward_data",
        formula=_softmax_like,
        cost=streaming(4),
        linear=linear_in((0,)),
        local=same,
        note="output * (grad - sum(grad * output))",
    ),
    Row(
        name="aten.native_layer_norm",
        formula=_layer_norm,
        cost=streaming(8),
        linear=nonlinear,
        local=same,
        note="mean and variance over the normalised dims, then scale and shift",
    ),
    Row(
        name="aten.native_layer_norm_backward",
        formula=_layer_norm_backward,
        cost=streaming(14),
        linear=linear_in((0,)),
        local=same,
        note="gradients of weight and bias are sums over the rows",
    ),
]
