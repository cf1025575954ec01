"""Which ops a compiler computes in one pass over memory with their neighbours."""

from supernode.ir import Op
from supernode.ops.formula import broadcast
from supernode.ops.row import row

_ROWWISE = frozenset(
    {
        "aten.mean.dim",
        "aten.sum.dim_IntList",
        "aten.amax",
        "aten.amin",
        "aten.var.correction",
        "aten.var_mean.correction",
        "aten.std.correction",
        "aten._softmax",
        "aten._log_softmax",
        "aten._softmax_backward_data",
        "aten._log_softmax_backward_data",
        "aten.native_layer_norm",
    }
)


def fuses(op: Op) -> bool:
    """Whether `op` is pointwise, or a reduction or normalisation that keeps its rows in a core.

    Products, attention, gathers, sorts and copies that change the layout are kernels of their own.

    **Source:** Ansel et al., "PyTorch 2", ASPLOS 2024, section 4.3 (what Inductor fuses).
    """
    room = op.name.partition(".")[0]
    if room in ("host", "fabric", "local", "place") or op.name == "aten._local_scalar_dense":
        return False
    return op.name in _ROWWISE or row(op).formula is broadcast
