"""Softmax and layer normalisation: the normalised dim is whole unless expanded."""

from supernode.ir import Arg, DType, Op, TensorType, Value
from supernode.ops.expansion import Expansion
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
        whole=frozenset({f"i{dim % max(rank, 1)}"}),
    )


def _expand_log_softmax(op: Op, fresh: Fresh) -> list[Op] | None:
    """x - max - log(sum(exp(x - max))), each step of which may be split."""
    x, dim, _ = op.args
    assert isinstance(x, Value)
    assert isinstance(dim, int)
    out = op.outputs[0]
    if not out.tensor.shape or not out.tensor.numel:
        return None
    full = out.tensor
    thin = TensorType(full.dtype, _with_one(full.shape, dim))
    steps = Expansion(op, fresh)
    x = steps.cast(x, full.dtype)
    top = steps.emit("aten.amax", thin, x, (dim,), True)
    centred = steps.like("aten.sub.Tensor", x, top)
    shares = steps.like("aten.exp", centred)
    total = steps.emit("aten.sum.dim_IntList", thin, shares, (dim,), True)
    steps.give(out, "aten.sub.Tensor", centred, steps.like("aten.log", total))
    return steps.ops


def _expand_log_softmax_backward(op: Op, fresh: Fresh) -> list[Op] | None:
    """grad - exp(output) * sum(grad)."""
    grad, output, dim, _ = op.args
    out = op.outputs[0]
    assert isinstance(grad, Value)
    assert isinstance(dim, int)
    if not out.tensor.shape:
        return None
    steps = Expansion(op, fresh)
    thin = TensorType(grad.tensor.dtype, _with_one(grad.tensor.shape, dim))
    total = steps.emit("aten.sum.dim_IntList", thin, grad, (dim,), True)
    share = steps.like("aten.mul.Tensor", steps.like("aten.exp", output), total)
    if out.type == grad.type:
        steps.give(out, "aten.sub.Tensor", grad, share)
    else:
        wide = steps.like("aten.sub.Tensor", grad, share)
        steps.give(out, "aten._to_copy", wide, dtype=DType(out.tensor.dtype))
    return steps.ops


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


def _weight_norm(op: Op) -> Formula:
    x, norms, whole = _weight_letters(op, op.arg(2, "dim", 0))
    return from_template(op, f"{x}, {norms} -> {x}, {norms}", whole=whole)


def _weight_norm_backward(op: Op) -> Formula:
    x, norms, whole = _weight_letters(op, op.arg(4))
    return from_template(op, f"{x}, {x}, {norms}, {norms} -> {x}, {norms}", whole=whole)


def _weight_letters(op: Op, dim: Arg) -> tuple[str, str, str]:
    """The dims of a matrix whose rows, along the first dim or the last, have a norm each; those of
    the norms; and those that a row is read over as a whole."""
    letters = ["r" if k == dim else f"c{k}" for k in range(len(shape_of(op.inputs[0])))]
    norms = ("r" if letter == "r" else "1" for letter in letters)
    return " ".join(letters), " ".join(norms), " ".join(letters).replace("r", "")


def _norm_letters(op: Op, x: Value) -> tuple[str, str]:
    normalised = next(arg for arg in op.args if isinstance(arg, tuple))
    rank = len(shape_of(x))
    split = rank - len(normalised)
    return " ".join(f"r{k}" for k in range(split)), " ".join(f"c{k}" for k in range(split, rank))


ROWS = [
    Row(
        name="aten._weight_norm_interface",
        formula=_weight_norm,
        cost=streaming(3),
        linear=nonlinear,
        local=same,
        note="a matrix whose rows have these norms, and what they had",
    ),
    Row(
        name="aten._weight_norm_interface_backward",
        formula=_weight_norm_backward,
        cost=streaming(6),
        linear=linear_in((0,)),
        local=same,
        note="of the matrix and of the norms",
    ),
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
        name="aten._safe_softmax",
        formula=_softmax_like,
        cost=streaming(10),
        linear=nonlinear,
        local=same,
        note="softmax, but zeros where all of a row is masked",
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
