"""Numbers of the host that a step computes with: learning rates, step counts, items of tensors.

A `HostFloat` looks like a float to Python arithmetic and to torch's argument parser, but each
operation on it is recorded as a `host.*` op, so the recorded step repeats the same double
precision arithmetic on new numbers.
"""

import builtins
import operator
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from supernode.capture import compat
from supernode.capture.sites import user_line
from supernode.capture.tape import Tape
from supernode.errors import CaptureError
from supernode.ir import HostType, Value

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "abs": abs,
    "min": min,
    "max": max,
}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass(frozen=True, slots=True, eq=False)
class Formula:
    """How a number follows from hyper-parameters alone: a leaf by name, or an operation."""

    name: str
    operands: tuple["Formula | float", ...] = ()

    def evaluate(self, values: Mapping[str, float]) -> float:
        """The number for these hyper-parameters."""
        if not self.operands:
            return values[self.name]
        return OPERATORS[self.name](*(_evaluate(each, values) for each in self.operands))


def _evaluate(operand: Formula | float, values: Mapping[str, float]) -> float:
    return operand.evaluate(values) if isinstance(operand, Formula) else operand


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guard:
    """A comparison of hyper-parameters that the step branched on, and how it came out."""

    comparison: str
    left: Formula | float
    right: Formula | float
    outcome: bool
    where: str

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether the step would branch the same way for these hyper-parameters."""
        left, right = _evaluate(self.left, values), _evaluate(self.right, values)
        return bool(getattr(operator, self.comparison)(left, right)) == self.outcome


class Choices:
    """The answers to comparisons that no hyper-parameter decides: `taken`, and then yes, if there
    may be `more`.

    `conditions` are the values that will decide them when the step runs.
    """

    def __init__(self, taken: list[bool], *, more: bool = True) -> None:
        self.conditions: list[Value] = []
        self._taken = taken
        self._more = more

    def answer(self, condition: Value) -> bool:
        """How the next comparison, whose outcome is `condition`, comes out.

        Raises:
            CaptureError: no answer is left.
        """
        self.conditions.append(condition)
        position = len(self.conditions) - 1
        if position >= len(self._taken) and not self._more:
            raise data_dependent("compared with another number")
        return self._taken[position] if position < len(self._taken) else True


class HostLedger:
    """Makes host numbers on a tape; knows the hyper-parameters and what was branched on."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.numbers: dict[str, float] = {}
        self.guards: list[Guard] = []
        self.asked: Callable[[Value], bool | None] = lambda source: None
        """How a branch on the number in a tensor must come out; None if it may go both ways."""
        self._choices: Choices | None = None

    @contextmanager
    def choosing(self, choices: Choices) -> Generator[None]:
        """Inside, `choices` answers what would be refused: which way the step goes."""
        self._choices = choices
        try:
            yield
        finally:
            self._choices = None

    @property
    def is_choosing(self) -> bool:
        """Whether branches on data are answered now, to be chosen from when the step runs."""
        return self._choices is not None

    def hyper_parameter(self, name: str, value: Value, number: float) -> "HostFloat":
        """The host number that stands for hyper-parameter `name`, `number` at present."""
        self.numbers[name] = number
        return HostFloat(HostNode(self, value, Formula(name)))

    def compute(self, name: str, operands: tuple[Any, ...]) -> Any:
        """Records `host.name` of numbers of which one at least is a `HostFloat`."""
        if not all(isinstance(each, int | float | HostFloat) for each in operands):
            return NotImplemented
        args = tuple(each.node.value if isinstance(each, HostFloat) else each for each in operands)
        (value,) = self.tape.emit(f"host.{name}", args, (), (HostType("float64"),))
        formulas = _formulas(operands)
        formula = None if formulas is None else Formula(name, formulas)
        return HostFloat(HostNode(self, value, formula))

    def compare(self, comparison: str, left: Any, right: Any) -> Any:
        """The outcome now, guarded; refused where it depends on more than hyper-parameters."""
        if not isinstance(right, int | float | HostFloat):
            return NotImplemented
        formulas = _formulas((left, right))
        if formulas is None and self._choices is not None:
            condition = self.compute(comparison, (left, right))
            return self._choices.answer(condition.node.value)
        if formulas is None:
            sources = [each.node.source for each in (left, right) if isinstance(each, HostFloat)]
            raise data_dependent("compared with another number", sources[0])
        guard = Guard(
            comparison=comparison,
            left=formulas[0],
            right=formulas[1],
            outcome=False,
            where=user_line(),
        )
        outcome = not guard.holds(self.numbers)
        self.guards.append(replace(guard, outcome=outcome))
        return outcome


def _formulas(operands: tuple[Any, ...]) -> tuple[Formula | float, ...] | None:
    found: list[Formula | float] = []
    for each in operands:
        if not isinstance(each, HostFloat):
            found.append(each)
        elif each.node.formula is None:
            return None
        else:
            found.append(each.node.formula)
    return tuple(found)


def data_dependent(use: str, source: Value | None = None, where: str = "") -> CaptureError:
    """The refusal of a number (that in `source`) whose value is known only when the step runs."""
    decides = source is not None and source.tensor.dtype == "bool"
    what = "a branch (if, while, and, assert) depends on data"
    return CaptureError(
        (what if decides else f"a number that depends on data is {use}")
        + ", so the step would differ from run to run",
        op="" if source is None else f"aten.item({source.type})",
        where=where or user_line(),
        fix="keep it a tensor (torch.where, masks), or return it and decide outside of the step",
    )


class HostNode:
    """What torch carries through its argument parser in place of a symbolic number.

    `formula` says how it follows from hyper-parameters; None where it depends on tensors.
    `source` is the value whose `.item()` it is.
    """

    def __init__(
        self, ledger: HostLedger, value: Value, formula: Formula | None, source: Value | None = None
    ) -> None:
        self.ledger = ledger
        self.value = value
        self.formula = formula
        self.source = source

    def is_int(self) -> bool:
        return False

    def is_float(self) -> bool:
        return True

    def is_bool(self) -> bool:
        return False

    def is_constant(self) -> bool:
        return False

    def is_symbolic(self) -> bool:
        return True

    def is_nested_int(self) -> bool:
        return False

    def maybe_as_int(self) -> None:
        return None

    def maybe_as_float(self) -> None:
        return None

    def guard_float(self, file: str, line: int) -> float:
        """The number itself, which the step then holds as a constant."""
        if self.source is not None and (answer := self.ledger.asked(self.source)) is not None:
            return answer
        decides = self.source is not None and self.source.tensor.dtype == "bool"
        if self.formula is None and decides and self.ledger.is_choosing:
            return self.guard_bool(file, line)
        if self.formula is None:
            raise data_dependent("used as a plain number", self.source)
        number = self.formula.evaluate(self.ledger.numbers)
        self.ledger.compare("eq", HostFloat(self), number)
        return number

    def guard_bool(self, file: str, line: int) -> bool:
        return self.ledger.compare("ne", HostFloat(self), 0)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise data_dependent(f"used by torch itself ({name})", self.source)

    def guard_int(self, file: str, line: int) -> int:
        raise data_dependent("used as an integer", self.source)


class HostFloat(torch.SymFloat):
    """A float that is known when the step runs."""

    node: HostNode

    def __bool__(self) -> bool:
        return self.node.guard_bool("", 0)

    def __float__(self) -> float:
        return self.node.guard_float("", 0)

    def __int__(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return int(float(self))

    def __index__(self) -> int:
        raise data_dependent("used as an index or size", self.node.source)

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(float(self), ndigits)

    def __trunc__(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return int(self)

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)

    def __str__(self) -> str:
        return str(float(self))

    def __repr__(self) -> str:
        return f"HostFloat({self.node.value})"

    def __hash__(self) -> int:
        return hash(float(self))


def _add_operators() -> None:
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
        setattr(HostFloat, f"__{name}__", _binary(name))
        setattr(HostFloat, f"__r{name}__", _reflected(name))
    for name in ("neg", "abs"):
        setattr(HostFloat, f"__{name}__", _unary(name))
    for name in COMPARISONS:
        setattr(HostFloat, f"__{name}__", _comparison(name))


def _binary(name: str) -> Callable[[HostFloat, Any], Any]:
    return lambda self, other: self.node.ledger.compute(name, (self, other))


def _reflected(name: str) -> Callable[[HostFloat, Any], Any]:
    return lambda self, other: self.node.ledger.compute(name, (other, self))


def _unary(name: str) -> Callable[[HostFloat], Any]:
    return lambda self: self.node.ledger.compute(name, (self,))


def _comparison(name: str) -> Callable[[HostFloat, Any], Any]:
    return lambda self, other: self.node.ledger.compare(name, self, other)


_add_operators()


def host_node(arg: Any) -> HostNode | None:
    """The node of a number that torch handed through, else None."""
    if isinstance(arg, torch.SymFloat) and isinstance(arg.node, HostNode):
        return arg.node
    return None


_plain_item = torch.Tensor.item


@contextmanager
def symbolic_items() -> Generator[None]:
    """Lets `Tensor.item` give our own numbers: torch makes plain symbolic ones of them."""

    def item(tensor: torch.Tensor) -> Any:
        number = _plain_item(tensor)
        node = host_node(number)
        return number if node is None else HostFloat(node)

    with (
        compat.patched(torch.Tensor, "item", item),
        compat.patched(torch, "as_tensor", _tensor_of(torch.as_tensor)),
        compat.patched(torch, "tensor", _tensor_of(torch.tensor)),
        compat.patched(builtins, "max", _extreme("max", max)),
        compat.patched(builtins, "min", _extreme("min", min)),
    ):
        yield


def _tensor_of(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if isinstance(data, HostFloat) and not args:
            kwargs.setdefault("dtype", torch.get_default_dtype())
            return torch.scalar_tensor(data, **kwargs)  # pyright: ignore[reportArgumentType]
        return plain(data, *args, **kwargs)

    return made


def _extreme(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """`max` or `min` of Python, which of two numbers that are known later is a host op."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        hosts = [arg for arg in args if isinstance(arg, HostFloat)]
        if not hosts or len(args) != 2 or kwargs:
            return plain(*args, **kwargs)
        return hosts[0].node.ledger.compute(name, args)

    return chosen
