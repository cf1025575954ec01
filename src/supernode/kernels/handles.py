"""The callable behind an op's name: a public `torch` function where it is the same op and calls
faster, else the overload of `torch.ops`.

A call through `torch.mul` costs 0.9 µs, through `torch.ops.aten.mul.Tensor` 1.4 µs (16 x 16
tensors, one core, torch 2.13): the latter parses the op's schema anew in each call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from supernode.errors import UnknownOp, near_matches
from supernode.kernels.attention import attention, attention_backward
from supernode.kernels.kernel import KERNELS
from supernode.plan.elementwise import ODD

# Ops whose `torch` function takes the arguments of the schema and reaches the same overload.
_PUBLIC = """
    abs add addcdiv addcmul addmm amax amin argmax argmin baddbmm bitwise_and bitwise_not
    bitwise_or bmm cat clamp clamp_max clamp_min clone convolution cos cumsum detach div
    embedding eq erf exp floor gather ge gt index_select isinf isnan le lerp log
    log1p logical_and logical_not logical_or lt masked_fill maximum mean minimum mm mul
    native_layer_norm ne neg permute pow reciprocal relu rsqrt
    rsub scatter scatter_add select sigmoid sign sin sqrt square squeeze stack sub sum t
    tanh transpose tril triu unsqueeze where
"""
PUBLIC = frozenset(_PUBLIC.split())

# Views ask for strides that allow them; a planned program has no strides, so it reshapes.
RESHAPED = frozenset({"aten.view", "aten._unsafe_view", "aten.view.default"})

METHODS: dict[str, Callable[..., Any]] = {
    "aten.expand": Tensor.expand,
    "aten._local_scalar_dense": Tensor.item,
}
"""Ops that are methods of a tensor, and no functions."""

OURS: dict[str, Callable[..., Any]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu": attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": attention_backward,
}
"""Ops that torch has on processors only, and that we compute elsewhere."""


@dataclass(frozen=True, slots=True)
class Handle:
    """What generated code calls: the name it is bound to, the callable, the op's overload."""

    symbol: str
    call: Callable[..., Any]
    overload: OpOverload


def handle(name: str) -> Handle:
    """The handle of `aten.sum.dim_IntList`, `aten.mm` (its default overload) or a custom op.

    Raises:
        UnknownOp: torch has no op of that name.
    """
    overload = find_overload(name)
    if name in RESHAPED:
        return Handle("torch_reshape", torch.reshape, overload)
    if name in OURS:
        return Handle(f"our_{OURS[name].__name__}", OURS[name], overload)
    if name in KERNELS:
        return Handle(f"kernel_{KERNELS[name].signature.name}", KERNELS[name].run, overload)
    if name in METHODS:
        return Handle(f"tensor_{METHODS[name].__name__}", METHODS[name], overload)
    namespace, short = name.split(".")[:2]
    if namespace == "aten" and short in PUBLIC and name not in ODD:
        return Handle(f"torch_{short}", getattr(torch, short), overload)
    return Handle(name.replace(".", "_"), overload, overload)


def find_overload(name: str) -> OpOverload:
    """The overload of `namespace.op` or `namespace.op.overload`."""
    namespace, _, rest = name.partition(".")
    short, _, variant = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), short, None) if short else None
    overload = getattr(packet, variant or "default", None)
    if isinstance(overload, OpOverload):
        return overload
    known = [f"{namespace}.{short}.{each}" for each in packet.overloads()] if packet else [name]
    fix = near_matches(name, known) if packet else "is the package that registers it imported?"
    raise UnknownOp(f"torch has no op {name!r}", fix=fix)
