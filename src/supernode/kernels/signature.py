"""What the formula of a kernel and the arguments of its Python function say together."""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

from supernode.errors import InputError
from supernode.ir import HostType, Op
from supernode.ops import Dims, Formula
from supernode.ops.formula import parse, shape_of

Shape = tuple[int, ...]
_WORD = re.compile(r"[A-Za-z_]\w*|1|->|[(),]|\S")
_KINDS: tuple[type, ...] = (bool, int, float, str)
"""What an argument may be that is no tensor; the order matters, as a bool is an int."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A formula, `m k, k n -> m n`, over the first arguments of a function.

    `scalars` are the arguments behind them: name, type, and default (`inspect.Parameter.empty`:
    none). `whole` and `reduced` are as in `Formula`.
    """

    name: str
    text: str
    tensors: tuple[str, ...]
    inputs: tuple[Dims, ...]
    outputs: tuple[Dims, ...]
    scalars: tuple[tuple[str, type, Any], ...] = ()
    whole: frozenset[str] = frozenset()
    reduced: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def schema(self) -> str:
        """The arguments and results as torch writes them."""
        tensors = [f"Tensor {name}" for name in self.tensors]
        scalars = [_declared(*scalar) for scalar in self.scalars]
        results = ", ".join(["Tensor"] * len(self.outputs))
        many = len(self.outputs) != 1
        return f"({', '.join(tensors + scalars)}) -> {f'({results})' if many else results}"

    def sizes(self, shapes: tuple[Shape, ...]) -> dict[str, int]:
        """The size of each factor.

        Raises:
            InputError: the shapes are not what the formula says.
        """
        sizes: dict[str, int] = {}
        pairs = [
            (dim, size, f"dim {i} of {name}")
            for name, dims, shape in zip(
                self.tensors, self.inputs, self._ranked(shapes), strict=True
            )
            for i, (dim, size) in enumerate(zip(dims, shape, strict=True))
        ]
        for dim, size, where in sorted(pairs, key=lambda pair: len(pair[0])):
            known, unknown = 1, list[str]()
            for factor in dim:
                if factor in sizes:
                    known *= sizes[factor]
                else:
                    unknown.append(factor)
            if len(unknown) > 1:
                raise self._unfit(
                    f"the sizes of {' and '.join(unknown)} in {where} are open", shapes
                )
            if unknown and known:
                sizes[unknown[0]] = size // known
                known *= sizes[unknown[0]]
            if known != size and dim:
                raise self._unfit(f"{where} is {size}, and {' '.join(dim)} is {known}", shapes)
        return sizes

    def _ranked(self, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        for name, dims, shape in zip(self.tensors, self.inputs, shapes, strict=True):
            if len(dims) != len(shape):
                raise self._unfit(f"{name} has {len(shape)} dims", shapes)
        return shapes

    def _unfit(self, wrong: str, shapes: tuple[Shape, ...]) -> InputError:
        shown = ", ".join(str(list(shape)) for shape in shapes)
        return InputError(f"{self.name}({shown}) does not fit its formula {self.text!r}: {wrong}")

    @property
    def contracts(self) -> bool:
        """Whether a factor of two inputs is in no output, as in a matrix product."""
        kept = {factor for dims in self.outputs for dim in dims for factor in dim}
        read = [{factor for dim in dims for factor in dim} - kept for dims in self.inputs]
        return any(one & other for i, one in enumerate(read) for other in read[:i])

    def results(self, sizes: Mapping[str, int]) -> tuple[Shape, ...]:
        """The shapes of the outputs."""
        return tuple(
            tuple(math.prod(sizes[factor] for factor in dim) for dim in dims)
            for dims in self.outputs
        )

    def formula(self, op: Op) -> Formula:
        """The Formula of one use in a Program; numbers of the host have no dims."""
        tensors = [value for value in op.inputs if not isinstance(value.type, HostType)]
        numbers = len(op.inputs) - len(tensors)
        found = self.of_tensors(self.sizes(tuple(map(shape_of, tensors))))
        return replace(found, inputs=(*found.inputs, *((),) * numbers))

    def of_tensors(self, sizes: Mapping[str, int]) -> Formula:
        """The Formula of the tensors alone, with these sizes of the factors."""
        return Formula(
            inputs=self.inputs,
            outputs=self.outputs,
            sizes=sizes,
            whole=self.whole,
            reduced=self.reduced,
        )


def signature(
    function: Callable[..., Any], text: str, whole: str, reduced: Mapping[str, str]
) -> Signature:
    """What `text` says of `function`.

    Raises:
        InputError: the formula is malformed, or the function has other arguments.
    """
    name = function.__name__
    inputs, outputs = _parsed(text)
    parameters = list(inspect.signature(function).parameters.values())
    tensors, rest = parameters[: len(inputs)], parameters[len(inputs) :]
    if len(tensors) < len(inputs) or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters):
        raise InputError(
            f"the formula {text!r} has {len(inputs)} inputs, {name} takes "
            f"({', '.join(map(str, parameters))})",
            fix="the first arguments are the inputs of the formula, one tensor each",
        )
    known = {factor for dims in (*inputs, *outputs) for dim in dims for factor in dim}
    if unknown := sorted({*whole.split(), *reduced} - known):
        raise InputError(f"the formula {text!r} has no {', '.join(unknown)}", asked=name)
    return Signature(
        name=name,
        text=text,
        tensors=tuple(parameter.name for parameter in tensors),
        inputs=inputs,
        outputs=outputs,
        scalars=tuple(_scalar(function, parameter) for parameter in rest),
        whole=frozenset(whole.split()),
        reduced=dict(reduced),
    )


def _parsed(text: str) -> tuple[tuple[Dims, ...], tuple[Dims, ...]]:
    words = _WORD.findall(text)
    odd = [word for word in words if not (word.isidentifier() or word in "1(),->")]
    nested = re.sub(r"\([^()]*\)", "", text)
    if odd or words.count("->") != 1 or "(" in nested or ")" in nested:
        raise _malformed(text, "write it like 'm k, k n -> m n', or 'b (h d) -> b h d'")
    inputs, outputs = parse(text)
    for dims in (*inputs, *outputs):
        factors = [factor for dim in dims for factor in dim]
        if len(factors) != len(set(factors)):
            raise _malformed(text, "a name may occur once in each tensor")
    given = {factor for dims in inputs for dim in dims for factor in dim}
    new = sorted({factor for dims in outputs for dim in dims for factor in dim} - given)
    if not inputs or not outputs or new:
        which = f"{', '.join(new)} of the output is in no input" if new else "a side is empty"
        raise _malformed(text, f"every size must follow from the inputs: {which}")
    return inputs, outputs


def _malformed(text: str, fix: str) -> InputError:
    return InputError(f"{text!r} is no formula of a kernel", fix=fix)


def _scalar(function: Callable[..., Any], parameter: inspect.Parameter) -> tuple[str, type, Any]:
    hint = _hints(function).get(parameter.name, type(parameter.default))
    if hint not in _KINDS:
        raise InputError(
            f"{function.__name__} takes {parameter.name}, which the formula has not, and no type "
            "is known of it",
            fix=f"annotate it ({parameter.name}: float), or name its dims in the formula",
        )
    return parameter.name, hint, parameter.default


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # of a name that only a type checker knows
        return {}


def _declared(name: str, kind: type, default: Any) -> str:
    if default is inspect.Parameter.empty:
        return f"{kind.__name__} {name}"
    shown = f'"{default}"' if kind is str else repr(kind(default))
    return f"{kind.__name__} {name}={shown}"
