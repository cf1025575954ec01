"""Scaled dot-product attention as one op, forward and backward."""

from collections.abc import Callable
from dataclasses import replace

from supernode.ir import Op, Type, Value
from supernode.ops.formula import Dim, Dims, Formula, shape_of, sizes_of
from supernode.ops.row import Cost, Row, Split, linear_in, nonlinear, traffic
from supernode.ops.shape import Scores

FORWARD = "aten._scaled_dot_product_flash_attention_for_cpu"
BACKWARD = "aten._scaled_dot_product_flash_attention_for_cpu_backward"
CAUSAL, CAUSAL_BACKWARD = "local.causal_attention", "local.causal_attention_backward"
"""Causal attention of the queries this chip has, over keys and values from the first on."""

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
    if groups == 1:  # heads that share all their keys and values can be on several chips
        ins, outs = _without_groups(ins), _without_groups(outs)
    return Formula(inputs=ins, outputs=outs, sizes=sizes, whole=frozenset(whole))


def _without_groups(operands: tuple[Dims, ...]) -> tuple[Dims, ...]:
    return tuple(
        tuple(tuple(factor for factor in dim if factor != "g") for dim in dims) for dims in operands
    )


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
    # A piece of the queries is cut no further: it is where it is among all queries.
    cut = {"s"} if op.name == CAUSAL else set[str]()
    return _formula(op, (_Q, _K, _K), (_OUT, _LSE), {"t", "e"} | cut)


def _backward(op: Op) -> Formula:
    """Queries apart give parts of the gradients of keys and values, which add up."""
    ins = (_OUT, _Q, _K, _K, _OUT, _LSE)
    cut = {"s"} if op.name == CAUSAL_BACKWARD else set[str]()
    return _formula(op, ins, (_Q, _K, _K), {"t", "e"} | cut)


def _local(position: int, name: str) -> Callable[[Op, Split, tuple[Type, ...]], Op]:
    """A causal mask counts tokens from the first: pieces of the queries know where they start."""

    def rule(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
        axes = split.get("s", ())
        if not axes or not op.arg(position, "is_causal", False):
            return op
        return replace(op, name=name, args=(*op.args[:position], axes))

    return rule


def _cost(op: Op, first: int, matmuls_qk: int, matmuls_pv: int) -> Cost:
    q, k, v = (shape_of(value) for value in op.inputs[first : first + 3])
    position = 4 if first == 0 else 7
    cut = op.name in (CAUSAL, CAUSAL_BACKWARD)
    shape = Scores(
        batch=q[0],
        heads=q[1],
        kv_heads=k[1],
        queries=q[2],
        keys=k[2],
        depth=q[3],
        value_depth=v[3],
        causal=cut or bool(op.arg(position, "is_causal", False)),
        backward=first == 1,
    )
    scores = q[0] * q[1] * q[2] * k[2]
    flops = 2.0 * scores * (matmuls_qk * q[3] + matmuls_pv * v[3])
    read, written = traffic(op)
    return Cost(flops, read, written, "matmul", op.inputs[first].tensor.dtype, shape)


_FORWARD_NOTE = "2 matmuls over the full score matrix, causal or not, as FlopCounterMode counts"
_BACKWARD_NOTE = "5 matmuls: scores again, then gradients of v, scores, q and k"


def _rows(forward: str, backward: str) -> list[Row]:
    return [
        Row(
            name=forward,
            formula=_forward,
            cost=lambda op: _cost(op, 0, 1, 1),
            linear=nonlinear,
            local=_local(4, CAUSAL),
            placed=frozenset("s"),
            note=_FORWARD_NOTE,
        ),
        Row(
            name=backward,
            formula=_backward,
            cost=lambda op: _cost(op, 1, 3, 2),
            linear=linear_in((0,)),
            local=_local(7, CAUSAL_BACKWARD),
            placed=frozenset("s"),
            note=_BACKWARD_NOTE,
        ),
    ]


ROWS = [*_rows(FORWARD, BACKWARD), *_rows(CAUSAL, CAUSAL_BACKWARD)]
