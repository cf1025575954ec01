"""The functional ops behind what a step calls when it is run, for steps that can't be captured."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from supernode.capture.functional import Kind, describe

_NOT_OPS = (Kind.QUERY, Kind.ALIAS, Kind.ITEM, Kind.COMPOSITE, Kind.FOREACH)


def ops_called(step: Callable[..., Any], args: tuple[Any, ...]) -> set[str]:
    """The names of those ops."""
    with _Calls() as calls:
        step(*args)
    return calls.names


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        info = describe(func)
        if info.kind not in _NOT_OPS:
            name = str(info.functional) if info.functional else info.name
            name = "aten.copy" if info.kind is Kind.COPY else name.removesuffix(".default")
            self.names.add(name)
        return func(*args, **(kwargs or {}))
