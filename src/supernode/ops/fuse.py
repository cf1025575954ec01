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
_GATHERS = frozenset(
    {"aten.index.Tensor", "aten.index_select", "aten.gather", "aten.embedding"},
)
_PLACED = frozenset({"aten.cat", "aten.constant_pad_nd", "aten.clone"})
_CONSTANT = ("aten.arange", "aten.full", "aten.ones", "aten.zeros", "aten.scalar_tensor")


def fuses(op: Op) -> bool:
    """Whether `op` is pointwise, a constant, or a reduction or normalisation that keeps its rows in
    a core; or reads from other places (a gather) or writes to them (joined, padded, laid out).

    Products, attention, sorts and scans are kernels of their own.

    **Source:** Ansel et al., "PyTorch 2", ASPLOS 2024, section 4.3 (what Inductor fuses: loads and
    stores at computed places are pointwise to it).
    """
    room = op.name.partition(".")[0]
    if room in ("host", "fabric", "local", "place") or op.name == "aten._local_scalar_dense":
        return False
    if op.name in _ROWWISE or op.name in _PLACED or op.name.startswith(_CONSTANT):
        return True
    return gathers(op) or overwrites(op) or row(op).formula is broadcast


def reduces(op: Op) -> bool:
    """Whether a fused `op` needs whole rows, so that what reads it elsewhere comes after it."""
    return op.name in _ROWWISE


def gathers(op: Op) -> bool:
    """Whether `op` reads its first input at computed places, no more of it than it gives."""
    return op.name in _GATHERS


def overwrites(op: Op) -> bool:
    """Whether `op` writes some rows of its first input in place, and leaves the others."""
    return op.name == "aten.index_copy"
