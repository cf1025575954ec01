"""Scaled dot-product attention as one op, forward and backward."""

from supernode.ir import Op, Value
from supernode.ops.formula import Dim, Dims, Formula, shape_of, sizes_of
from supernode.ops.row import Cost, Row, linear_in, nonlinear, same, traffic

FORWARD = "aten._scaled_dot_product_flash_attention_for_cpu"
BACKWARD = "aten._scaled_dot_product_flash_attention_for_cpu_backward"

_Q: Dims = (("b",), ("g", "r"), ("s",), ("e",))
_K: Dims = (("b",), ("g",), ("t",), ("e",))
_OUT: Dims = _Q
_LSE: Dims = (("b",), ("g", "r"), ("s",))
_MASK: Dims = (("b",), ("g", "r"), ("s",), ("t",))


def _formula(op: Op, ins: tuple[Dims, ...], outs: tuple[Dims, ...], whole: set[str]) -> Formula:
    """Head groups `g` share keys and values, `r` query heads each (grouped-query attention)."""
    mask = op.kwarg("attn_mask")
    key = next(v for v, dims in zip(op.inputs, ins, strict=False) if dims is _K)
    groups = shape_of(key)[1]
    pairs = [(dims, shape_of(v)) for v, dims in zip(op.inputs, ins, strict=False)]
    pairs += [(dims, shape_of(v)) for v, dims in zip(op.outputs, outs, strict=True)]
    sizes = sizes_of(tuple(pairs), {"g": groups})
    if isinstance(mask, Value):
        ins = (*ins, _mask_dims(shape_of(mask), sizes))
    return Formula(inputs=ins, outputs=outs, sizes=sizes, whole=frozenset(whole))


def _mask_dims(shape: tuple[int, ...], sizes: dict[str, int]) -> Dims:
    dims = _MASK[len(_MASK) - len(shape) :]
    heads = sizes["g"] * sizes["r"]
    full: dict[Dim, int] = {
        ("b",): sizes["b"],
        ("g", "r"): heads,
        ("s",): sizes["s"],
        ("t",): sizes["t"],
    }
    return tuple(dim if size == full[dim] else () for dim, size in zip(dims, shape, strict=True))


def _forward(op: Op) -> Formula:
    causal = bool(op.arg(4, "is_causal", False))
    whole = {"t", "e", "r"} | ({"s"} if causal else set())
    return _formula(op, (_Q, _K, _K), (_OUT, _LSE), whole)


def _backward(op: Op) -> Formula:
    ins = (_OUT, _Q, _K, _K, _OUT, _LSE)
    return _formula(op, ins, (_Q, _K, _K), {"r", "s", "t", "e"})


def _cost(op: Op, first: int, matmuls_qk: int, matmuls_pv: int) -> Cost:
    q, k, v = (shape_of(value) for value in op.inputs[first : first + 3])
    scores = q[0] * q[1] * q[2] * k[2]
    flops = 2.0 * scores * (matmuls_qk * q[3] + matmuls_pv * v[3])
    read, written = traffic(op)
    return Cost(flops, read, written, "matmul", op.inputs[first].tensor.dtype)


ROWS = [
    Row(
        name=FORWARD,
        formula=_forward,
        cost=lambda op: _cost(op, 0, 1, 1),
        linear=nonlinear,
        local=same,
        note="2 matmuls over the full score matrix, causal or not, as FlopCounterMode counts; "
        "a causal mask counts tokens from the first, so they stay whole",
    ),
    Row(
        name=BACKWARD,
        formula=_backward,
        cost=lambda op: _cost(op, 1, 3, 2),
        linear=linear_in((0,)),
        local=same,
        note="5 matmuls: scores again, then gradients of v, scores, q and k",
    ),
]
