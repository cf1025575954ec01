# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
"""The names of torch that are not public, all in one place, for torch 2.11 to 2.13."""

import importlib
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import Tensor
from torch._C import DispatchKey
from torch._ops import OpOverload as OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

NAMES = (
    "torch._C._AutoDispatchBelowAutograd",
    "torch._C._DisableTorchDispatch",
    "torch._C._current_autograd_node",
    "torch._C._set_mkldnn_enabled",
    "torch._C._swap_tensor_impl",
    "torch._check_with",
    "torch.ops.aten.mm.default._op_dk",
    "torch.ops.aten.mm.default._schema",
    "torch.ops.aten.mm.default.decompose",
    "torch._subclasses.fake_tensor.FakeTensorMode",
    "torch.autograd._get_sequence_nr",
    "torch.amp.GradScaler._maybe_opt_step",
    "torch.optim.asgd._single_tensor_asgd",
    "torch.optim.radam._single_tensor_radam",
    "torch.utils._pytree.tree_flatten_with_path",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils.checkpoint.CheckpointFunction",
    "torch.utils.checkpoint._checkpoint_without_reentrant_generator",
    "torch.SymFloat",
    "torch.Tensor._backward_hooks",
    "torch.Tensor._post_accumulate_grad_hooks",
)

UNSUPPORTED = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
"""What a fake tensor raises where the shape of a result depends on data, or is unknown."""

_plain_item = Tensor.item


def missing_names() -> list[str]:
    """Those of `NAMES` that this torch lacks; empty on a supported version."""
    return [name for name in NAMES if not _exists(name)]


def _exists(name: str) -> bool:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def fake_mode() -> FakeTensorMode:
    """Tensors without data; real ones may enter, because the recorder replaces them."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def fake_like(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """A fake on the CPU with the shape, strides, dtype and `requires_grad` of `tensor`."""
    with mode:
        fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    fake.requires_grad_(tensor.requires_grad)
    if isinstance(tensor, torch.nn.Parameter):
        vars(fake)["_is_param"] = True
    return fake


def meta_like(tensor: Tensor) -> Tensor:
    """A tensor without data or history, of the same shape, strides and dtype."""
    return torch.empty_strided(
        tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype, device="meta"
    )


def registries(module: torch.nn.Module) -> tuple[dict[str, Any], ...]:
    """The tables in which a module keeps its parameters, buffers, submodules and hooks."""
    return tuple(module.__dict__[name] for name in _TABLES if name in module.__dict__)


_TABLES = [name for name, value in torch.nn.Module().__dict__.items() if isinstance(value, dict)]


def autocast_device(autocast: torch.autocast) -> str | None:
    """The device an autocast is for; None where it is switched off."""
    return autocast.device if autocast._enabled else None


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether somebody asked to be called before or after its steps."""
    return any(vars(optimizer).get(f"_optimizer_step_{when}_hooks") for when in ("pre", "post"))


STEP_OR_SKIP = "_maybe_opt_step"
"""The method of `GradScaler` that steps an optimizer, or skips it by data."""


def set_scale(scaler: torch.amp.GradScaler, scale: Tensor, growth_tracker: Tensor) -> None:
    """Makes these the tensors of a scaler; what it holds of optimizers goes into a dict of its
    own."""
    own = scaler._per_optimizer_states.copy()
    vars(scaler).update(_scale=scale, _growth_tracker=growth_tracker, _per_optimizer_states=own)


def is_amid_update(scaler: torch.amp.GradScaler) -> bool:
    """Whether a scaler has looked at gradients since its last `update`."""
    return bool(scaler._per_optimizer_states)


def found_inf(state: dict[str, Any]) -> list[Tensor]:
    """What a scaler holds of one optimizer: tensors that are not zero where it is to be skipped."""
    return list(state["found_inf_per_device"].values())


def leave_scaling_alone(optimizer: torch.optim.Optimizer) -> None:
    """Lets scalers unscale the gradients of a fused optimizer, as those of any other."""
    vars(optimizer).pop("_step_supports_amp_scaling", None)


def copy_hooks(tensor: Tensor, other: Tensor) -> None:
    """Registers the gradient hooks of one tensor on another as well."""
    for hook in (tensor._backward_hooks or {}).values():
        other.register_hook(hook)
    for hook in (tensor._post_accumulate_grad_hooks or {}).values():
        other.register_post_accumulate_grad_hook(hook)


def swap_contents(a: Tensor, b: Tensor) -> None:
    """Exchanges what two tensor objects are; whoever holds one of them now holds the other's data.

    `torch.utils.swap_tensors` without its checks: it refuses a parameter that an autograd graph
    still refers to, which is any after a forward pass, and here each swap is undone.
    """
    a_class, b_class = a.__class__, b.__class__
    a.__class__, b.__class__ = b_class, a_class
    a_dict, b_dict = a.__dict__, b.__dict__
    setattr(a, "__dict__", b_dict)  # noqa: B010
    setattr(b, "__dict__", a_dict)  # noqa: B010
    torch._C._swap_tensor_impl(a, b)


def number_of(tensor: Tensor) -> float:
    """The number in a real 0-dim tensor, read past the modes that are active."""
    with real_tensors():
        return _plain_item(tensor)


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written; tensors of inference mode don't count."""
    return 0 if tensor.is_inference() else tensor._version


def storage_key(tensor: Tensor) -> int:
    """A number that tensors share exactly when they share memory."""
    return tensor.untyped_storage()._cdata


def check_with() -> Callable[..., None]:
    """What `torch._check` and its kin all call."""
    return torch._check_with


def backward_node() -> Any:
    """The autograd node that is running, or None outside of a backward pass."""
    return torch._C._current_autograd_node()


def last_sequence_number() -> int:
    """The number of the autograd node made last; its backward shows the same number."""
    return torch.autograd._get_sequence_nr() - 1


def op_name(overload: OpOverload) -> str:
    """`aten.mm` for a default overload, else `aten.sum.dim_IntList`."""
    return str(overload).removesuffix(".default")


def arguments_of(overload: OpOverload) -> list[Any]:
    """The arguments in the schema of an op: name, type, what is written."""
    return overload._schema.arguments


def results_of(overload: OpOverload) -> list[Any]:
    """The results in the schema of an op."""
    return overload._schema.returns


def is_composite(overload: OpOverload) -> bool:
    """Whether the CPU runs an op as others; under inference mode such ops reach the recorder."""
    has_kernel = overload.has_kernel_for_dispatch_key
    return has_kernel(DispatchKey.CompositeImplicitAutograd) and not has_kernel(DispatchKey.CPU)


def decompose(overload: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs the body of an op that is made of others."""
    return overload.decompose(*args, **kwargs)


def run_slow_path(overload: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a `_foreach_` op as the CPU does: one tensor at a time."""
    with torch._C._AutoDispatchBelowAutograd():
        return overload._op_dk(DispatchKey.CompositeExplicitAutograd, *args, **kwargs)


@contextmanager
def real_tensors() -> Generator[None]:
    """Outside of all modes: what is computed inside is real."""
    with torch._C._DisableTorchDispatch(), torch.no_grad():
        yield


@contextmanager
def patched(owner: object, name: str, value: object) -> Generator[None]:
    """`owner.name` is `value` inside, and what it was (or absent) afterwards."""
    absent = object()
    old = vars(owner).get(name, absent)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if old is absent:
            delattr(owner, name)
        else:
            setattr(owner, name, old)


@dataclass(frozen=True, slots=True)
class _PlainCheckpoint:
    """Stands in for `CheckpointFunction`: runs the function and keeps what it saves."""

    region: Callable[[], AbstractContextManager[None]]

    def apply(self, function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        # The reentrant variant gives no gradients unless an argument asks for them.
        wanted = any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()), self.region():
            return function(*args)


@contextmanager
def no_checkpointing(region: Callable[[], AbstractContextManager[None]]) -> Generator[None]:
    """Makes activation checkpointing the identity, but for `region` being entered around it.

    A recompute would draw new dropout masks. The internals are replaced, because users import
    `checkpoint` itself by name.
    """

    def plain_generator(*args: Any, **kwargs: Any) -> Iterator[None]:
        with region():
            yield

    with ExitStack() as stack:
        stack.enter_context(patched(checkpointing, "CheckpointFunction", _PlainCheckpoint(region)))
        name = "_checkpoint_without_reentrant_generator"
        stack.enter_context(patched(checkpointing, name, plain_generator))
        yield


def branching_loops() -> list[tuple[Any, str]]:
    """The plain loops of optimizers that branch on the number of the step: module and name."""
    names = ("radam", "asgd")
    return [(importlib.import_module(f"torch.optim.{n}"), f"_single_tensor_{n}") for n in names]


@contextmanager
def plain_recurrence() -> Generator[None]:
    """LSTM as ordinary ops: that of oneDNN keeps a workspace that no other op can read."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def scheduler_classes() -> list[type[LRScheduler]]:
    """`LRScheduler` and all classes derived from it."""
    found: list[type[LRScheduler]] = [LRScheduler]
    for kind in found:
        found += [sub for sub in kind.__subclasses__() if sub not in found]
    return found


def flatten(tree: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The leaves of nested containers, each with its path (`[0][key]`), and the structure."""
    leaves, spec = pytree.tree_flatten_with_path(tree)
    return [("".join(map(_path, keys)), leaf) for keys, leaf in leaves], spec


def _path(key: Any) -> str:
    for field in ("key", "idx", "name"):
        if hasattr(key, field):
            return f"[{getattr(key, field)}]"
    return f"[{key}]"


def unflatten(leaves: list[Any], spec: Any) -> Any:
    """The containers that `flatten` took apart, with other leaves."""
    return pytree.tree_unflatten(leaves, spec)


@contextmanager
def looking_real(is_unknown: Callable[[Any], bool]) -> Generator[None]:
    """Lets transformers see only those tensors as fake that `is_unknown` says are.

    It takes other branches for fakes (a mask for what needs none), so results would differ in
    rounding from a plain run. For a mask that is an argument it has to: then a batch without
    padding, for which a plain run drops the mask, is the one that differs in rounding.
    """
    module = sys.modules.get("transformers.utils.import_utils")
    if module is None or not hasattr(module, "is_fake_tensor"):
        yield
        return
    with patched(module, "is_fake_tensor", is_unknown):
        yield
