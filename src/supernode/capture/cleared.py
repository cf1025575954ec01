"""Whether a step reads gradients from before it: which parameters `zero_grad` cleared in time."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from supernode.capture import compat


class Cleared:
    """The parameters that had `zero_grad` called on them before they got a gradient."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names: set[str] = set()
        self._by_id = names

    @contextmanager
    def watching(self) -> Generator[None]:
        """Notes calls of `zero_grad`, of optimizers and of modules."""
        with ExitStack() as stack:
            for owner in (Optimizer, nn.Module):
                stack.enter_context(compat.patched(owner, "zero_grad", self._watched(owner)))
            yield

    def _watched(self, owner: type[Optimizer] | type[nn.Module]) -> Callable[..., None]:
        plain: Any = vars(owner)["zero_grad"]

        def zero_grad(cleared: Any, *args: Any, **kwargs: Any) -> None:
            for param in _parameters_of(cleared):
                if param.grad is None and id(param) in self._by_id:
                    self.names.add(self._by_id[id(param)])
            plain(cleared, *args, **kwargs)

        return zero_grad


def _parameters_of(owner: Optimizer | nn.Module) -> Iterator[Tensor]:
    if isinstance(owner, nn.Module):
        yield from owner.parameters()
        return
    for group in owner.param_groups:
        yield from group["params"]
