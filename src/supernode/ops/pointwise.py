"""Pointwise ops: one factor a dim, broadcasting included."""

from collections.abc import Callable

from supernode.ir import DType, HostType, Op, Value
from supernode.ops.formula import broadcast
from supernode.ops.row import Cost, Row, linear_in, nonlinear, same, streaming

Linear = Callable[[Op], tuple[tuple[int, ...], ...]]


def _row(name: str, linear: Linear = nonlinear, flops: float = 1.0, note: str = "") -> Row:
    return Row(
        name=name,
        formula=broadcast,
        cost=streaming(flops),
        linear=linear,
        local=same,
        note=note or "pointwise",
    )


def _sum_of_both(op: Op) -> tuple[tuple[int, ...], ...]:
    # x + 1 is affine: a constant or host number would be added once per part.
    return ((0, 1),) if _reads_only_tensors(op, 2) else ()


def _product(op: Op) -> tuple[tuple[int, ...], ...]:
    both = isinstance(op.args[0], Value) and isinstance(op.args[1], Value)
    return ((0,), (1,)) if both else ((0,),)


def _reads_only_tensors(op: Op, count: int) -> bool:
    tensors = [v for v in op.inputs if not isinstance(v.type, HostType)]
    return len(tensors) == count == len(op.inputs)


def _cast(op: Op) -> tuple[tuple[int, ...], ...]:
    dtype = op.kwarg("dtype")
    source = op.inputs[0].tensor.dtype
    target = dtype.name if isinstance(dtype, DType) else source
    return ((0,),) if "float" in source and "float" in target else ()


def _fill_of(group: tuple[int, ...]) -> Linear:
    """Filling with a number is linear in the rest where that number is zero."""
    return lambda op: (group,) if op.arg(2) == 0 else ()


def _copy_cost(op: Op) -> Cost:
    """What is overwritten is not read."""
    source, target = op.inputs[1].tensor, op.outputs[0].tensor
    return Cost(0.0, source.size_bytes, target.size_bytes, "vector", target.dtype)


LINEAR = [
    _row("aten.add.Tensor", _sum_of_both),
    _row("aten.sub.Tensor", _sum_of_both),
    _row("aten.mul.Tensor", _product),
    _row("aten.mul.Scalar", linear_in((0,))),
    _row("aten.div.Tensor", linear_in((0,))),
    _row("aten.div.Scalar", linear_in((0,))),
    _row("aten.neg", linear_in((0,))),
    _row("aten.lerp.Scalar", linear_in((0, 1)), 3),
    _row("aten.lerp.Tensor", linear_in((0, 1)), 3),
    _row("aten.addcmul", linear_in((0, 1), (0, 2)), 3),
    _row("aten.addcdiv", linear_in((0, 1)), 3),
    _row("aten.where.self", linear_in((1, 2))),
    _row("aten.masked_fill.Scalar", _fill_of((0,))),
    _row("aten._to_copy", _cast, note="a cast between floats keeps sums to the dtype's rounding"),
    _row("aten.where.ScalarOther", _fill_of((1,))),
    _row("aten.masked_fill.Tensor", note="linear in nothing: the number may not be zero"),
    _row("aten.rsub.Tensor", _sum_of_both),
]

COPY = Row(
    name="aten.copy",
    formula=broadcast,
    cost=_copy_cost,
    linear=linear_in((1,)),
    local=same,
    note="the second input in the dtype and shape of the first",
)

BACKWARD = [
    _row("aten.silu_backward", linear_in((0,)), 8),
    _row("aten.gelu_backward", linear_in((0,)), 16),
    _row("aten.sigmoid_backward", linear_in((0,)), 3),
    _row("aten.tanh_backward", linear_in((0,)), 3),
    _row("aten.threshold_backward", linear_in((0,))),
    _row("aten.softplus_backward", linear_in((0,)), 8),
    _row("aten.hardswish_backward", linear_in((0,)), 4),
    _row("aten.hardsigmoid_backward", linear_in((0,)), 2),
    _row("aten.hardtanh_backward", linear_in((0,)), 2),
    _row("aten.leaky_relu_backward", linear_in((0,)), 2),
    _row("aten.elu_backward", linear_in((0,)), 8),
    _row("aten.mish_backward", linear_in((0,)), 16),
    _row("aten.log_sigmoid_backward", linear_in((0,)), 8),
    _row("aten.hardshrink_backward", linear_in((0,))),
    _row("aten.softshrink_backward", linear_in((0,))),
    _row("aten._prelu_kernel_backward", linear_in((0,)), 2, "the slope's in the shape of x"),
    _row("aten.logit_backward", linear_in((0,)), 4),
]

_COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
_BINARY = [
    "maximum",
    "minimum",
    "bitwise_and.Tensor",
    "bitwise_or.Tensor",
    "bitwise_xor.Tensor",
    "logical_and",
    "logical_or",
    "logical_xor",
    "floor_divide",
    "fmod.Scalar",
    "fmod.Tensor",
    "remainder.Scalar",
    "remainder.Tensor",
    "div.Tensor_mode",
    "copysign.Tensor",
    "clamp.Tensor",
    "clamp_min.Tensor",
    "clamp_max.Tensor",
]
_CHEAP = [
    "abs",
    "relu",
    "sign",
    "sgn",
    "floor",
    "ceil",
    "round",
    "trunc",
    "isnan",
    "isinf",
    "nan_to_num",
    "bitwise_not",
    "logical_not",
    "reciprocal",
    "square",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "leaky_relu",
    "threshold",
    "hardshrink",
    "softshrink",
    "_prelu_kernel",
    "frac",
    "fmax",
    "fmin",
]
_COSTLY = [
    "exp",
    "log",
    "log1p",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "silu",
    "gelu",
    "erf",
    "erfc",
    "exp2",
    "expm1",
    "log2",
    "log10",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "sinh",
    "cosh",
    "hypot",
    "xlogy.Tensor",
    "logaddexp",
    "softplus",
    "elu",
    "mish",
    "celu",
    "logit",
    "asinh",
    "acosh",
    "atanh",
    "lgamma",
    "digamma",
    "erfinv",
    "sinc",
    "logaddexp2",
]

NONLINEAR = [
    *(_row(f"aten.{name}.{kind}") for name in _COMPARISONS for kind in ("Tensor", "Scalar")),
    *(_row(f"aten.{name}") for name in _BINARY + _CHEAP),
    *(_row(f"aten.{name}", flops=8) for name in _COSTLY),
    _row("aten.log_sigmoid_forward", flops=8, note="and exp(-|x|), which the backward reads"),
    _row("aten.add.Scalar"),
    _row("aten.sub.Scalar"),
    _row("aten.rsub.Scalar"),
    _row("aten.clamp"),
    _row("aten.clamp_min"),
    _row("aten.clamp_max"),
    _row("aten.sqrt", flops=4),
    _row("aten.rsqrt", flops=4),
    _row("aten.pow.Tensor_Scalar", flops=2),
    _row("aten.pow.Tensor_Tensor", flops=8),
    _row("aten.pow.Scalar", flops=8),
]

ROWS = [*LINEAR, COPY, *BACKWARD, *NONLINEAR]
