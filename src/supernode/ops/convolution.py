"""Convolutions of any rank, forward and backward; images stay whole, since parts would overlap.

n is the batch, c the channels read and o those written, per group where there are groups g.
"""

from dataclasses import replace

from supernode.ir import Op, Type, Value
from supernode.ops.expansion import Expansion
from supernode.ops.formula import Formula, from_template, shape_of
from supernode.ops.row import Cost, Fresh, Row, Split, int_of, linear_in, traffic, with_arg

_GROUPS, _BACKWARD_GROUPS = 8, 9
"""Where each op has its number of groups."""


def _dims(weight: Value, transposed: bool, groups: int) -> tuple[str, str, str]:
    """Dims of what is read, of the weight and of what is written."""
    space = " 1" * (len(shape_of(weight)) - 2)
    c, o = ("(g c)", "(g o)") if groups > 1 else ("c", "o")
    kernel = f"{c} o" if transposed else f"{o} c"
    return f"n {c}{space}", f"{kernel}{space}", f"n {o}{space}"


def _forward(op: Op) -> Formula:
    groups = int_of(op.args[_GROUPS])
    x, weight, out = _dims(op.inputs[1], bool(op.args[6]), groups)
    biased = len(op.inputs) == 3
    bias = (", (g o)" if groups > 1 else ", o") if biased else ""
    template = f"{x}, {weight}{bias} -> {out}"
    return from_template(op, template, whole="c" if biased else "", sizes={"g": groups})


def _backward(op: Op) -> Formula:
    groups = int_of(op.args[_BACKWARD_GROUPS])
    x, weight, out = _dims(op.inputs[2], bool(op.args[7]), groups)
    bias = "(g o)" if groups > 1 else "o"
    asked = _asked(op)
    grads = zip((x, weight, bias), asked, strict=True)
    outs = ", ".join(dims for dims, wanted in grads if wanted)
    template = f"{out}, {x}, {weight} -> {outs}"
    # Chips with other channels would each have the whole gradient of the bias, not a part.
    return from_template(op, template, whole="c" if asked[2] else "", sizes={"g": groups})


def _asked(op: Op) -> tuple[bool, ...]:
    """Which gradients are asked for: of what was read, of the weight, of the bias."""
    mask = op.args[10]
    assert isinstance(mask, tuple)
    return tuple(map(bool, mask))


def _local_forward(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    x, weight, *_ = op.inputs
    return with_arg(op, _GROUPS, _groups(x, weight, op.outputs[0], bool(op.args[6])))


def _local_backward(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    grad, x, weight = op.inputs
    op = with_arg(op, _BACKWARD_GROUPS, _groups(x, weight, grad, bool(op.args[7])))
    return op if op.args[3] is None else with_arg(op, 3, (shape_of(grad)[1],))


def _groups(x: Value, weight: Value, out: Value, transposed: bool) -> int:
    """The groups of one chip: its weights have as many channels a group as all weights."""
    return shape_of(out if transposed else x)[1] // shape_of(weight)[1]


def _expand_forward(op: Op, fresh: Fresh) -> list[Op] | None:
    """The bias must be added once, so a split of c needs the sum apart from the product."""
    x, weight, bias, *rest = op.args
    if not isinstance(bias, Value):
        return None
    steps = Expansion(op, fresh)
    out = op.outputs[0]
    product = steps.emit(op.name, out.tensor, x, weight, None, *rest)
    ones = (1,) * (len(out.tensor.shape) - 2)
    shifted = steps.view(bias, bias.tensor.numel, *ones)
    steps.give(out, "aten.add.Tensor", product, shifted)
    return steps.ops


def _expand_backward(op: Op, fresh: Fresh) -> list[Op] | None:
    """The gradient of the bias apart: it is the sum of what comes in, whatever was read."""
    *asked, bias = _asked(op)
    if not bias or not any(asked):
        return None
    grad = op.inputs[0]
    steps = Expansion(op, fresh)
    over = tuple(k for k in range(len(grad.tensor.shape)) if k != 1)
    steps.give(op.outputs[-1], "aten.sum.dim_IntList", grad, over)
    without = with_arg(with_arg(op, 10, (*asked, False)), 3, None)
    return [replace(without, outputs=op.outputs[:-1]), *steps.ops]


def _flops(x: Value, weight: Value, out: Value, transposed: bool) -> float:
    """Each weight meets each place of the smaller image once per sample."""
    flops = 2.0 * weight.tensor.numel * shape_of(x)[0]
    for size in shape_of(x if transposed else out)[2:]:
        flops *= size
    return flops


def _forward_cost(op: Op) -> Cost:
    x, weight = op.inputs[:2]
    flops = _flops(x, weight, op.outputs[0], bool(op.args[6]))
    return Cost(flops, *traffic(op), "matmul", op.outputs[0].tensor.dtype)


def _backward_cost(op: Op) -> Cost:
    grad, x, weight = op.inputs
    flops = _flops(x, weight, grad, bool(op.args[7])) * sum(_asked(op)[:2])
    return Cost(flops, *traffic(op), "matmul", op.outputs[0].tensor.dtype)


ROWS = [
    Row(
        name="aten.convolution",
        formula=_forward,
        cost=_forward_cost,
        linear=lambda op: ((0, 2), (1, 2)) if len(op.inputs) == 3 else ((0,), (1,)),
        local=_local_forward,
        expand=_expand_forward,
        note="2 FLOP a weight, place and sample; with a bias c splits only after `expand`",
    ),
    Row(
        name="aten.convolution_backward",
        formula=_backward,
        cost=_backward_cost,
        linear=linear_in((0,)),
        local=_local_backward,
        expand=_expand_backward,
        note="as much as forward for what was read, and again for the weight",
    ),
]
