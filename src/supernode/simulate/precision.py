"""Precision: what a run computes its linear layers in, where that is not the dtype of the model.

A Program holds the dtypes of the model, as captured. Runs in float8, int8 or float4 keep those and
compute the linear layers (matrix products with weights, of experts too) in fewer bits, on inputs
that are cast on the way. So a precision is a rule of the cost of ops, no other program: the matrix
unit runs at the rate of the narrow type, and the weights and activations that it reads are narrow.
Attention, embeddings, norms and the head stay as captured. In a step that serves, what casting
costs is left to whatever writes the activations, which a compiler fuses it into, but where one
scale serves so few numbers that a kernel of its own finds it (`-cast`). Of experts the cast is part
of what was measured.

In a step that trains, activations and gradients are cast by kernels of their own, once each for the
two products that read them: 2 bytes read, and a narrow copy written for each of the two orders in
which products walk over it. Where a tensor has one scale, both copies are the same numbers, and
chips whose products read either order need one. A scale of the very numbers (`fp8-cs`) takes a pass
to find it before; one of earlier steps, or of a few neighbours, does not. A gradient's cast is
counted with the forward product, whose result it has the shape of. What is gathered for a product
is cast before (`cast_first.py`).

**Source:** NVIDIA, Transformer Engine 2.9, documentation of delayed and current scaling, MXFP8 and
NVFP4 (copies by rows and by columns; two passes of current scaling), `cast_transpose`, and
`quantizer.cpp` (`nvte_is_non_tn_fp8_gemm_supported`: no copy by columns on Blackwell).

A cache of keys and values may be narrow for itself: then attention of a few queries, as a decode
step has, reads fewer bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from supernode import ops
from supernode.errors import UnknownName, near_matches
from supernode.ir import Op, Program
from supernode.ops import Cost, Product
from supernode.simulate.op_time import is_of_a_cache
from supernode.simulate.side_by_side import CostOf

_EXPERTS = ("aten._grouped_mm",)
_ATTENTION = ".attention"
_HEAD = "lm_head"
"""What stacks for training keep wide, as the last layer is (Megatron-Core: `output_layer`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What linear layers run in: the dtype of the matrix unit, the bytes of a weight and of an
    activation that it reads; `ops` are those that do. With `casts` a kernel of its own
    narrows what is read; layers in modules whose name has `kept` in it stay as captured. Experts
    whose weights are in a `format` of their own have kernels that were measured for themselves. In
    training casting reads a number `passes` times, and `one_scale` serves a whole tensor."""

    dtype: str
    weight_bytes: float
    activation_bytes: float
    ops: tuple[str, ...] = ("aten.mm", "aten.addmm", "aten._grouped_mm")
    casts: bool = False
    kept: str = ""
    format: str = ""
    passes: int = 1
    one_scale: bool = False


_FLOAT8 = Precision(dtype="float8", weight_bytes=1.0, activation_bytes=1.0)
_FLOAT4 = Precision(dtype="float4", weight_bytes=0.5625, activation_bytes=0.5625)
_INT4 = Precision(dtype="bfloat16", weight_bytes=0.53125, activation_bytes=2.0, format="int4")
_MXFP4 = replace(_INT4, ops=_EXPERTS, format="mxfp4")
_AS_CAPTURED = ("", "bf16", "bfloat16", "fp16", "float16", "fp32", "float32")
PRECISIONS: Mapping[str, Precision] = {
    "fp8": replace(_FLOAT8, one_scale=True),
    "fp8-cs": replace(_FLOAT8, passes=2, one_scale=True),
    "fp8-cast": replace(_FLOAT8, casts=True),
    "mxfp8": _FLOAT8,
    "int8": Precision(dtype="int8", weight_bytes=1.0, activation_bytes=1.0),
    "fp4": _FLOAT4,
    "nvfp4": replace(_FLOAT4, passes=2),
    "fp4-cast": replace(_FLOAT4, casts=True),
    "fp4-mlp": replace(_FLOAT4, kept=_ATTENTION),
    "int4": _INT4,
    "int4-experts": replace(_INT4, ops=_EXPERTS),
    "mxfp4": _MXFP4,
    "mxfp4-mxfp8": replace(_MXFP4, dtype="float8", activation_bytes=1.0),
}
"""By the names that published results use. float4 has a scale byte for 16 values, int4 two for 64,
mxfp4 one for 32; those two widen their weights before they multiply. Weights of gpt-oss are mxfp4
in its experts alone."""


CACHES: Mapping[str, str] = {"fp8": "float8"}
"""What a cache may be in, and the dtype whose kernels read it; a number takes one byte."""


def cost_in(
    precision: str, cache: str = "", cost: CostOf = ops.cost, *, trains: bool = False
) -> CostOf:
    """The cost of ops in a run whose linear layers are in `precision` (`fp8`, `bf16`, …), and whose
    `cache` of keys and values is in `fp8` or as captured; a run that `trains` casts gradients too.

    Raises:
        UnknownName: there is no such precision.
    """
    if cache not in _AS_CAPTURED:
        cost = _cost_with_cache(cache, cost)
    name = precision.split(" ")[0]
    if name in _AS_CAPTURED:
        return cost
    if name not in PRECISIONS:
        fix = near_matches(name, [*PRECISIONS, "bf16"])
        raise UnknownName(f"unknown precision {precision!r}", fix=fix)
    chosen = PRECISIONS[name]

    def lowered(op: Op) -> Cost:
        full = cost(op)
        kept = (chosen.kept, _HEAD if trains else "")
        if op.name not in chosen.ops or any(name and name in op.site.module for name in kept):
            return full
        narrow = _lowered(op, full, chosen)
        return _with_casts(op, narrow, chosen) if trains else narrow

    return lowered


def is_training(program: Program) -> bool:
    """Whether a step goes backward."""
    blocks = program.all_blocks()
    return any(op.site.phase == "backward" for block in blocks for op in block.ops)


def _with_casts(op: Op, narrow: Cost, precision: Precision) -> Cost:
    """A product of narrow operands, and a forward one with what narrows its activations and the
    gradient of its result."""
    shape, size = narrow.shape, precision.activation_bytes
    if not isinstance(shape, Product) or op.name in _EXPERTS:
        return narrow
    cast = replace(shape, narrow=size / 2)
    if op.site.phase == "forward":
        each = 2 * precision.passes + 2 * size
        cast = replace(
            cast,
            cast_bytes=each * shape.m * shape.k,
            gradient_cast_bytes=each * shape.m * shape.n,
            turned=size / each if precision.one_scale else 0.0,
        )
    return replace(narrow, shape=cast)


def _cost_with_cache(cache: str, cost: CostOf) -> CostOf:
    if cache not in CACHES:
        fix = near_matches(cache, [*CACHES, "bf16"])
        raise UnknownName(f"no cache is kept in {cache!r}", fix=fix)

    def narrow(op: Op) -> Cost:
        full = cost(op)
        if not is_of_a_cache(full.shape):
            return full
        kept = {value.id: value.type.size_bytes for value in op.inputs[1:3]}
        saved = sum(kept.values()) / 2
        return replace(full, dtype=CACHES[cache], bytes_read=full.bytes_read - saved)

    return narrow


def _lowered(op: Op, full: Cost, precision: Precision) -> Cost:
    """The first matrix is activations and the second a weight, or both are activations of a
    gradient; either way both are narrow."""
    first = 1 if op.name == "aten.addmm" else 0
    left, right = (value.type for value in op.inputs[first : first + 2])
    read = left.size_bytes * precision.activation_bytes / 2
    read += right.size_bytes * precision.weight_bytes / 2
    rest = full.bytes_read - left.size_bytes - right.size_bytes
    lowered = replace(full, dtype=precision.dtype, bytes_read=read + max(rest, 0.0))
    if not isinstance(full.shape, Product):
        return lowered
    casts = precision.casts and op.name not in _EXPERTS
    cast_bytes = left.size_bytes * (1 + precision.activation_bytes / 2) if casts else 0.0
    shape = replace(full.shape, cast_bytes=cast_bytes, weights=precision.format)
    return replace(lowered, shape=shape)
