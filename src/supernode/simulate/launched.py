"""What a training stack launches for an op: kernels by the host, experts one by one.

An op is one kernel. Experts are multiplied one by one, by the kernels of linear layers, so that
the power limit holds for them as for those; in a narrow type each after casts of what it reads.
Where no captured graph does it, the host launches all of these, and the time of a small expert is
that of its launches. Kernels that hold casts and products of all experts are one launch.

**Source:** NVIDIA, Transformer Engine 2.9, `GroupedLinear`: `split_quantize` and
`multi_stream_cublas_gemm` go through the experts in a loop; of the three matrices of a gated expert
two are one there, so that its backward has four products for six. A cast writes a tensor along rows
and along columns, for the products of both phases (`quantizer.cpp`). cuDNN frontend, grouped
products with casts (`NVTE_CUTEDSL_FUSED_GROUPED_MLP`).
"""

from dataclasses import replace

from supernode.ir import Op
from supernode.ops import Cost, Product
from supernode.simulate.side_by_side import CostOf

_EXPERTS = "aten._grouped_mm"
_NARROW = ("float8", "float4")
ALL = ("",)
"""A part of every module's name: all of a step is a graph."""


NOTHING = (0.0, 0.0)


def by_host(
    cost: CostOf, *, graphs: tuple[str, ...], casts: int, beside: tuple[float, float] = NOTHING
) -> CostOf:
    """The cost of ops of such a stack, of which modules with one of `graphs` in their name are
    captured graphs. So many kernels cast a tensor of an expert; 0: the product does it. What the
    stack reads and writes `beside` is in bytes for each number of all rows, in forward and in
    backward."""

    def launched(op: Op) -> Cost:
        full = cost(op)
        if full == Cost():
            return full
        graphed = any(name in op.site.module for name in graphs)
        launches = 0.0 if graphed else 1.0
        if op.name != _EXPERTS or not isinstance(full.shape, Product):
            return replace(full, launches=launches)
        each = 1 + casts if op.site.phase == "forward" else (2 + casts) * 2 / 6
        moved = _cast_bytes(op, full, casts) + _beside_bytes(op, beside)
        shape = replace(full.shape, apart=True, cast_bytes=moved)
        return replace(full, shape=shape, launches=launches * each * shape.groups)

    return launched


def _cast_bytes(op: Op, full: Cost, casts: int) -> float:
    """Read and written twice, and read once more where one scale is found first; a gradient is cast
    for the product with weights, and found cast by the other one."""
    left, right = (value.tensor for value in op.inputs[:2])
    if not casts or full.dtype not in _NARROW or len(right.shape) < 3:
        return 0.0
    return left.size_bytes * (2.0 if casts == 1 else 3.0)


def _beside_bytes(op: Op, beside: tuple[float, float]) -> float:
    """At the product with weights that reads rows as wide as tokens; of experts as wide as those it
    is two in forward (gate and up are one), and three in backward, that share it."""
    left, right = (value.tensor for value in op.inputs[:2])
    if len(right.shape) < 3 or right.shape[1] < right.shape[2]:
        return 0.0
    forward = op.site.phase == "forward"
    alike = 1 if right.shape[1] > right.shape[2] else 2 if forward else 3
    return left.numel * (beside[0] if forward else beside[1]) / alike
