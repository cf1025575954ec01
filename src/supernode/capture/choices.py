"""Branches of torch on the number of the step: both ways are recorded, one is chosen later.

RAdam and ASGD ask in Python how far training has come. What they do with one parameter is recorded
once for each way such questions can come out; each tensor then is what `where` picks of the two.
So is an average of weights, which is a copy of them at first.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from supernode.capture import compat
from supernode.capture.aliases import write
from supernode.capture.host import Choices, HostLedger
from supernode.capture.tensors import Tensors
from supernode.ir import DType, TensorType, Value
from supernode.kernels import is_dense

Body = Callable[[], None]


@contextmanager
def both_ways(tensors: Tensors, ledger: HostLedger) -> Generator[None]:
    """Lets what branches on the number of the step do so: optimizers of torch, `AveragedModel`."""
    with ExitStack() as stack:
        plain = AveragedModel.update_parameters
        average = _first_or_later(plain, tensors, ledger)
        stack.enter_context(compat.patched(AveragedModel, plain.__name__, average))
        for module, name in compat.branching_loops():
            loop = _one_by_one(getattr(module, name), tensors, ledger)
            stack.enter_context(compat.patched(module, name, loop))
        yield


def _one_by_one(
    loop: Callable[..., None], tensors: Tensors, ledger: HostLedger
) -> Callable[..., None]:
    """`loop` over lists of parameters and state, called for one parameter after the other."""

    def stepped(*lists: list[Tensor], **settings: Any) -> None:
        for each in zip(*lists, strict=True):
            body = partial(loop, *([tensor] for tensor in each), **settings)
            _Paths(body, list(each), tensors, ledger).run()

    return stepped


def _first_or_later(
    plain: Callable[..., None], tensors: Tensors, ledger: HostLedger
) -> Callable[..., None]:
    """`plain`, which asks whether nothing was averaged before, and then whether something was."""

    def update_parameters(averaged: AveragedModel, model: nn.Module) -> None:
        written = [*averaged.parameters(), *averaged.buffers()]
        body = partial(plain, averaged, model)
        _Paths(body, written, tensors, ledger).run_either([True, False], [False, True])

    return update_parameters


class _Paths:
    """The ways that one body can go, and what it leaves in `written` on each of them."""

    def __init__(
        self, body: Body, written: list[Tensor], tensors: Tensors, ledger: HostLedger
    ) -> None:
        self._body = body
        self._written = written
        self._before = [tensors.value_of(tensor) for tensor in written]
        self._tensors = tensors
        self._ledger = ledger

    def run(self) -> None:
        """Leaves in each tensor what the way that a run will take leaves there."""
        self._put(self._explored([]))

    def run_either(self, first: list[bool], other: list[bool]) -> None:
        """The same where all questions are one: only these two lists of answers can be given."""
        conditions, values = self._taken(first)
        _, others = self._taken(other)
        pairs = zip(values, others, strict=True)
        self._put([self._where(conditions[0], *pair) for pair in pairs])

    def _taken(self, answers: list[bool]) -> tuple[list[Value], list[Value]]:
        self._put(self._before)
        choices = Choices(answers, more=False)
        with self._ledger.choosing(choices):
            self._body()
        return choices.conditions, [self._tensors.value_of(tensor) for tensor in self._written]

    def _explored(self, taken: list[bool]) -> list[Value]:
        """The values after a way that begins with the answers `taken`."""
        self._put(self._before)
        choices = Choices(taken)
        with self._ledger.choosing(choices):
            self._body()
        values = [self._tensors.value_of(tensor) for tensor in self._written]
        answers = taken + [True] * (len(choices.conditions) - len(taken))
        for position in range(len(answers) - 1, len(taken) - 1, -1):
            others = self._explored([*answers[:position], False])
            pairs = zip(values, others, strict=True)
            values = [self._where(choices.conditions[position], *pair) for pair in pairs]
        return values

    def _where(self, condition: Value, one: Value, other: Value) -> Value:
        if one == other:
            return one
        emit = self._tensors.tape.emit
        dtype = (("dtype", DType("bool")),)
        (flag,) = emit("aten.scalar_tensor", (condition,), dtype, (TensorType("bool", ()),))
        (value,) = emit("aten.where.self", (flag, one, other), (), (one.type,))
        return value

    def _put(self, values: list[Value]) -> None:
        for tensor, value in zip(self._written, values, strict=True):
            if self._tensors.value_of(tensor) != value:
                view = self._tensors.view_of(tensor)
                write(view, value, self._tensors.tape, dense=is_dense(tensor))
