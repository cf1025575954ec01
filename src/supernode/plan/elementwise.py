"""The ops that can write elsewhere than into new memory, and what their results look like there."""

from supernode.ir import Op, Value

# Elementwise ops with a method `x.op_(…)` that computes the same bits.
_OVERWRITING = """
    abs add addcdiv addcmul clamp clamp_max clamp_min cos div erf exp floor lerp log
    log1p mul neg pow reciprocal relu rsqrt sigmoid sign sin sqrt square sub tanh
"""
OVERWRITING = frozenset(_OVERWRITING.split())

# Ops whose `torch` function takes `out=`.
_WITH_OUT = """
    abs add addcdiv addcmul addmm bmm cat clamp cos div exp lerp log maximum minimum mm mul neg
    pow reciprocal rsqrt sigmoid sin sqrt sub tanh where
"""
WITH_OUT = frozenset(_WITH_OUT.split())

ODD = frozenset({"aten.add.Scalar", "aten.sub.Scalar"})
"""Overloads whose `alpha` comes by position, which torch's functions and methods do not take."""


def is_aten(op: Op, names: frozenset[str]) -> bool:
    """Whether `op` is one of `names`, in a form that takes `out=` or is a method."""
    if op.name in ODD:
        return False
    namespace, _, rest = op.name.partition(".")
    return namespace == "aten" and rest.partition(".")[0] in names and len(op.outputs) == 1


def first_operand(op: Op) -> Value | None:
    """The operand whose type and strides the result takes over; None where it does not."""
    if not is_aten(op, OVERWRITING) or not isinstance(op.args[0], Value):
        return None
    return op.args[0] if op.args[0].type == op.outputs[0].type else None
