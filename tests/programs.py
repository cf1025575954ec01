"""Small Programs for tests, written op by op; output types come from torch's meta tensors."""

from typing import Any

import torch
from torch import Tensor

from supernode.ir import (
    Arg,
    Block,
    Op,
    Phase,
    Port,
    Program,
    Role,
    Site,
    TensorType,
    Type,
    Value,
    verify,
)


class Builder:
    """Writes a Program; `x = b.input("x", "arg", (8, 4))`, `y = b.op("aten.relu", x)`."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.inputs: list[tuple[Value, Port]] = []
        self.ops: list[Op] = []
        self.outputs: list[tuple[Value, Port, int | None]] = []
        self.site = Site("m", "forward", "model.py:1")

    def phase(self, phase: Phase) -> None:
        """Ops that follow belong to this phase of the step."""
        self.site = Site("m", phase, "model.py:1")

    def input(self, name: str, role: Role, shape: tuple[int, ...], dtype: str = "float32") -> Value:
        """One more input."""
        value = self._fresh(TensorType(dtype, shape))
        self.inputs.append((value, Port(name=name, role=role)))
        return value

    def op(self, name: str, *args: Arg, **kwargs: Arg) -> Any:
        """One more op; its value, or a tuple of them."""
        packet, _, overload = name.removeprefix("aten.").partition(".")
        function = getattr(getattr(torch.ops.aten, packet), overload or "default")
        result = function(*map(_meta, args), **{k: _meta(v) for k, v in kwargs.items()})
        results = result if isinstance(result, tuple | list) else (result,)
        outputs = tuple(self._fresh(_type(each)) for each in results)
        self.ops.append(
            Op(name=name, args=args, kwargs=tuple(kwargs.items()), outputs=outputs, site=self.site)
        )
        return outputs if isinstance(result, tuple | list) else outputs[0]

    def result(self, value: Value, name: str = "result") -> None:
        """`value` is returned by the step."""
        self.outputs.append((value, Port(name=name, role="result"), None))

    def update(self, old: Value, new: Value) -> None:
        """`new` is the next value of the input `old`."""
        index = [value for value, _ in self.inputs].index(old)
        self.outputs.append((new, self.inputs[index][1], index))

    def build(self, name: str = "test") -> Program:
        """The verified Program."""
        main = Block(
            name="main",
            inputs=tuple(value for value, _ in self.inputs),
            ops=tuple(self.ops),
            outputs=tuple(value for value, _, _ in self.outputs),
        )
        return verify(
            Program(
                name=name,
                main=main,
                inputs=tuple(port for _, port in self.inputs),
                outputs=tuple(port for _, port, _ in self.outputs),
                updates=tuple(source for _, _, source in self.outputs),
            )
        )

    def _fresh(self, type_: Type) -> Value:
        value = Value(len(self.values), type_)
        self.values.append(value)
        return value


def random_inputs(program: Program, seed: int = 0) -> list[Tensor]:
    """Normal floats and small non-negative integers for every input."""
    generator = torch.Generator().manual_seed(seed)
    out: list[Tensor] = []
    for value in program.main.inputs:
        type_ = value.tensor
        dtype = getattr(torch, type_.dtype)
        if dtype.is_floating_point:
            out.append(torch.randn(type_.shape, generator=generator).mul_(0.5).to(dtype))
        else:
            out.append(torch.randint(0, 4, type_.shape, generator=generator).to(dtype))
    return out


def _meta(arg: Arg) -> Any:
    if isinstance(arg, Value):
        type_ = arg.tensor
        return torch.empty(type_.shape, dtype=getattr(torch, type_.dtype), device="meta")
    if isinstance(arg, tuple):
        return [_meta(item) for item in arg]
    return arg


def _type(tensor: Tensor) -> TensorType:
    return TensorType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
