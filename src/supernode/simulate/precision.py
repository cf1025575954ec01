"""Precision: what a run computes its linear layers in, where that is not the dtype of the model.

A Program holds the dtypes of the model, as captured. Runs in float8, int8 or float4 keep those and
compute the linear layers (matrix products with weights, of experts too) in fewer bits, on inputs
that are cast on the way. So a precision is a rule of the cost of ops, no other program: the matrix
unit runs at the rate of the narrow type, and the weights and activations that it reads are narrow.
Attention, embeddings, norms and the head stay as captured. What casting costs is left to whatever
writes the activations, which a compiler fuses it into.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from supernode import ops
from supernode.errors import UnknownName, near_matches
from supernode.ir import Op
from supernode.ops import Cost
from supernode.simulate.ask import CostOf

_EXPERTS = ("aten._grouped_mm",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What linear layers run in: the dtype of the matrix unit, the bytes of a weight and of an
    activation that it reads; `ops` are those that do."""

    dtype: str
    weight_bytes: float
    activation_bytes: float
    ops: tuple[str, ...] = ("aten.mm", "aten.addmm", "aten._grouped_mm")


_FLOAT8 = Precision(dtype="float8", weight_bytes=1.0, activation_bytes=1.0)
_FLOAT4 = Precision(dtype="float4", weight_bytes=0.5625, activation_bytes=0.5625)
_AS_CAPTURED = ("", "bf16", "bfloat16", "fp16", "float16", "fp32", "float32")
PRECISIONS: Mapping[str, Precision] = {
    "fp8": _FLOAT8,
    "fp8-cs": _FLOAT8,
    "mxfp8": _FLOAT8,
    "int8": Precision(dtype="int8", weight_bytes=1.0, activation_bytes=1.0),
    "fp4": _FLOAT4,
    "nvfp4": _FLOAT4,
    "int4": Precision(dtype="bfloat16", weight_bytes=0.53125, activation_bytes=2.0),
    "mxfp4": Precision(dtype="bfloat16", weight_bytes=0.53125, activation_bytes=2.0, ops=_EXPERTS),
    "mxfp4-mxfp8": Precision(
        dtype="float8", weight_bytes=0.53125, activation_bytes=1.0, ops=_EXPERTS
    ),
}
"""By the names that published results use. float4 has a scale byte for 16 values, int4 two for 64,
mxfp4 one for 32; the last two widen their weights before they multiply. Weights of gpt-oss are
mxfp4 in its experts alone."""


def cost_in(precision: str, cost: CostOf = ops.cost) -> CostOf:
    """The cost of ops in a run whose linear layers are in `precision` (`fp8`, `bf16`, …).

    Raises:
        UnknownName: there is no such precision.
    """
    name = precision.split(" ")[0]
    if name in _AS_CAPTURED:
        return cost
    if name not in PRECISIONS:
        fix = near_matches(name, [*PRECISIONS, "bf16"])
        raise UnknownName(f"unknown precision {precision!r}", fix=fix)
    chosen = PRECISIONS[name]

    def lowered(op: Op) -> Cost:
        full = cost(op)
        return _lowered(op, full, chosen) if op.name in chosen.ops else full

    return lowered


def _lowered(op: Op, full: Cost, precision: Precision) -> Cost:
    """The first matrix is activations and the second a weight, or both are activations of a
    gradient; either way both are narrow."""
    first = 1 if op.name == "aten.addmm" else 0
    left, right = (value.type for value in op.inputs[first : first + 2])
    read = left.size_bytes * precision.activation_bytes / 2
    read += right.size_bytes * precision.weight_bytes / 2
    rest = full.bytes_read - left.size_bytes - right.size_bytes
    return replace(full, dtype=precision.dtype, bytes_read=read + max(rest, 0.0))
