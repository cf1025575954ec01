"""Which functional op computes what a mutating op writes."""

from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Any

import torch

from supernode.capture import compat
from supernode.capture.compat import OpOverload


class Kind(Enum):
    """How the recorder treats an op."""

    FUNCTIONAL = auto()
    QUERY = auto()  # asks about a tensor (its device), computes nothing
    ALIAS = auto()  # the same elements at the same place
    VIEW = auto()
    INPLACE = auto()
    OUT = auto()
    ITEM = auto()
    COMPOSITE = auto()
    FOREACH = auto()
    COPY = auto()
    WRITES_ARGUMENTS = auto()
    GROUPED_MM = auto()
    CHECK = auto()  # gives nothing, and raises where a tensor is zero
    RESHAPES_SELF = auto()
    UNSCALE = auto()  # what a scaler of the loss does in one kernel: to gradients,
    RESCALE = auto()  # and to its scale
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class OpInfo:
    """What the recorder knows of an overload.

    `functional` computes what a mutating op writes into the arguments `written`; `defaults` are
    the arguments by position that it asks for and the op itself doesn't.
    """

    kind: Kind
    name: str
    functional: OpOverload | None = None
    written: tuple[str, ...] = ()
    defaults: tuple[tuple[int, Any], ...] = ()
    random: bool = False
    changes_dtype: bool = False


ALIASES = frozenset({"detach", "alias", "lift_fresh", "lift", "resolve_conj", "resolve_neg"})
RENAMED = {
    "normal_": "normal_functional",
    "bernoulli_.float": "bernoulli.p",
    "zero_": "zeros_like",
    "fill_.Scalar": "full_like",
    "transpose_": "transpose.int",
    "ldexp_": "ldexp.Tensor",
    "floor_divide_.Tensor": "floor_divide",
    "pow_.Scalar": "pow.Tensor_Scalar",
    "pow_.Tensor": "pow.Tensor_Tensor",
}
FILLS = {
    "aten.zeros": 0.0,
    "aten.zeros_like": 0.0,
    "aten.new_zeros": 0.0,
    "aten.ones": 1.0,
    "aten.ones_like": 1.0,
    "aten.new_ones": 1.0,
}
"""The number that fills the result of a factory op."""

FILL_ARGUMENT = {"aten.full": 1, "aten.full_like": 1, "aten.new_full": 2, "aten.scalar_tensor": 0}
"""Where a factory op has the number that fills its result."""

COMPARES = ("eq_", "ne_", "lt_", "le_", "gt_", "ge_", "logical_")
_MUTATION = ("has no form without mutation", "write the step with ordinary tensor operations")
_LAYOUTS = {
    "sparse": ("makes a sparse tensor", "use dense gradients (sparse=False)"),
    "nested_tensor": ("makes a nested tensor", "pad its parts to one size, and mask"),
}
"""By what is in the name of an op: why its result can't be part of a Program, and what to do."""

_DISTRIBUTED = ("c10d", "_c10d_functional")
_TALKS = (
    "talks to other processes",
    "write the step for one device: supernode distributes it",
)
FIXED_SHAPE = {
    "repeat_interleave": "give output_size=",
    "bincount": "torch.zeros(n).scatter_add_(0, x, torch.ones_like(x))",
    "_unique2": "sort, and compare neighbours",
    "unique_consecutive": "compare neighbours",
    "unique_dim": "compare rows with rows",
    "arange": "give it plain numbers",
    "range": "give it plain numbers",
}
"""By the base name of an op whose shape depends on data: how to do without."""

SCALES = {
    "_amp_foreach_non_finite_check_and_unscale_": Kind.UNSCALE,
    "_amp_update_scale_": Kind.RESCALE,
}
REFUSED = frozenset({"set_", "resize_", "resize_as_", "resize"})


def reason(name: str) -> tuple[str, str]:
    """Why an op is refused, and what to do."""
    namespace, base, *_ = name.split(".")
    if namespace in _DISTRIBUTED:
        return _TALKS
    return next((why for each, why in _LAYOUTS.items() if each in base), _MUTATION)


@cache
def describe(op: OpOverload) -> OpInfo:
    """What the recorder knows of `op`."""
    name = compat.op_name(op)
    short = name.partition(".")[2]
    base = short.partition(".")[0]
    random = torch.Tag.nondeterministic_seeded in op.tags
    if op.namespace in ("prim", "profiler") or base in ("is_same_size", "sym_size", "is_pinned"):
        return OpInfo(Kind.QUERY, name)
    if base in ALIASES:
        return OpInfo(Kind.ALIAS, name)
    if base == "lift_fresh_copy":
        return OpInfo(Kind.FUNCTIONAL, name)
    if base == "_local_scalar_dense":
        return OpInfo(Kind.ITEM, name)
    if base.startswith("_foreach_"):
        return OpInfo(Kind.FOREACH, name)
    if base == "native_batch_norm":  # its schema doesn't say that it writes
        functional = torch.ops.aten._native_batch_norm_legit_functional.default
        written = ("running_mean", "running_var")
        return OpInfo(Kind.WRITES_ARGUMENTS, name, functional, written)
    if base == "_assert_async":
        return OpInfo(Kind.CHECK, name)
    if base == "_grouped_mm":
        return OpInfo(Kind.GROUPED_MM, name)
    if base in SCALES:
        return OpInfo(SCALES[base], name)
    if base in REFUSED or any(each in base for each in _LAYOUTS) or op.namespace in _DISTRIBUTED:
        return OpInfo(Kind.REFUSED, name)
    if compat.is_composite(op):
        return OpInfo(Kind.COMPOSITE, name)
    if _is_mutable(op):
        return _mutating(op, name, short, random)
    if any(result.alias_info is not None for result in compat.results_of(op)):
        return OpInfo(Kind.VIEW, name)
    return OpInfo(Kind.FUNCTIONAL, name, random=random)


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_mutable(op: OpOverload) -> bool:
    return any(map(_writes, compat.arguments_of(op)))


def _mutating(op: OpOverload, name: str, short: str, random: bool) -> OpInfo:
    if short == "copy_":
        return OpInfo(Kind.COPY, name)
    if torch.Tag.inplace_view in op.tags:
        functional = _overload(op.namespace, RENAMED.get(short) or _without_underscore(short))
        return OpInfo(Kind.RESHAPES_SELF, name, functional)
    arguments = compat.arguments_of(op)
    written = tuple(argument.name for argument in arguments if _writes(argument))
    if all(a.kwarg_only for a in arguments if a.name in written):
        return OpInfo(Kind.OUT, name, _without_out(op), written, random=random)
    results = compat.results_of(op)
    if len(written) > 1 or not results or results[0].alias_info is None:
        functional = _overload(op.namespace, f"{short.removesuffix('_')}_functional")
        kind = Kind.REFUSED if functional is None else Kind.WRITES_ARGUMENTS
        return OpInfo(kind, name, functional, written, random=random)
    functional = _overload(op.namespace, RENAMED.get(short) or _without_underscore(short))
    if functional is None or not _alike(op, functional):
        return OpInfo(Kind.REFUSED, name)
    compares = short.startswith(COMPARES)
    defaults = _defaults(op, functional)
    return OpInfo(Kind.INPLACE, name, functional, written, defaults, random, compares)


def _defaults(op: OpOverload, functional: OpOverload) -> tuple[tuple[int, Any], ...]:
    wanted = {a.name: a.has_default_value() for a in compat.arguments_of(functional)}
    return tuple(
        (position, argument.default_value)
        for position, argument in enumerate(compat.arguments_of(op))
        if argument.has_default_value() and not wanted.get(argument.name, True)
    )


def _alike(op: OpOverload, functional: OpOverload) -> bool:
    """Whether both take the same arguments, as far as both have any (`polygamma` turns them)."""
    pairs = zip(compat.arguments_of(op), compat.arguments_of(functional), strict=False)
    return all(str(ours.type) == str(theirs.type) for ours, theirs in pairs)


def _without_underscore(short: str) -> str:
    base, dot, overload = short.partition(".")
    base = f"__{base[3:]}" if base.startswith("__i") else base.removesuffix("_")
    return base + dot + overload


def _overload(namespace: str, short: str) -> OpOverload | None:
    base, _, overload = short.partition(".")
    packet = getattr(getattr(torch.ops, namespace), base, None) if base else None
    return getattr(packet, overload or "default", None)


def _without_out(op: OpOverload) -> OpOverload | None:
    """The overload of the same op with the same arguments but for what is written."""
    packet = op.overloadpacket
    wanted = [(a.name, str(a.type)) for a in compat.arguments_of(op) if a.alias_info is None]
    for overload in packet.overloads():
        other: OpOverload = getattr(packet, overload)
        same = [(a.name, str(a.type)) for a in compat.arguments_of(other)] == wanted
        if same and not _is_mutable(other):
            return other
    return None
