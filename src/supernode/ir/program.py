"""Program: a typed SSA graph over ATen ops, with repeated blocks stored once.

A Program has one `main` block. Where the captured step repeats itself (the layers of a
transformer, forward, backward and in the optimizer), the repeated stretch is a block of its own
and `main` holds one `call` op per repetition. `main.inputs` and `main.outputs` are described by
ports: which is a parameter, optimizer state, an argument of the step or its result. An output
that is the next value of an input (a trained weight) names that input in `updates`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from supernode.ir.types import Arg, Type, Value

Role = Literal["param", "buffer", "state", "host", "arg", "constant", "result"]
Phase = Literal["forward", "backward", "optimizer"]
CALL = "call"
SEND, RECEIVE = "fabric.send", "fabric.receive"
"""What chips of one stage of a pipeline send those of another, and what these get."""
FETCH, STORE, WAIT = "place.fetch", "place.store", "place.wait"
"""`fetch(x, place)` copies what lies in another place into the chip's memory, `store(x, place)`
does the reverse. Both only begin: whoever reads what is fetched waits for it, and after
`wait(x, stored)` the memory of `x` is free. They stand in `main`."""


_LAYER = re.compile(r"(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class Site:
    """Where an op comes from: module path, phase of the step, line of the user's code.

    `task` is what of a stage's schedule it belongs to, `forward 3 of chunk 1`, in a pipeline.
    `region` tells calls of `torch.utils.checkpoint` apart: what the user's model wants computed
    again in backward; empty outside of them.
    """

    module: str = ""
    phase: Phase = "forward"
    source: str = ""
    task: str = ""
    region: str = ""

    @property
    def layer(self) -> str:
        """The module up to the first number in its path, `model.layers.3`; empty if it has none."""
        found = _LAYER.match(self.module)
        return found[1] if found else ""

    def __str__(self) -> str:
        parts = [self.source, f"in {self.module}" if self.module else "", self.phase]
        return ", ".join(part for part in parts if part)


NOWHERE = Site()


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation. `args` and `kwargs` hold values and constants as the op's schema has them.

    `name` is `aten.mm`, `aten.sum.dim_IntList`, `host.pow`, `fabric.all_reduce` or `call`; a
    call names its `block`.
    """

    name: str
    args: tuple[Arg, ...]
    outputs: tuple[Value, ...]
    kwargs: tuple[tuple[str, Arg], ...] = ()
    block: str = ""
    site: Site = NOWHERE
    inputs: tuple[Value, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        found: list[Value] = []
        for arg in self.args:
            _collect(arg, found)
        for _, arg in self.kwargs:
            _collect(arg, found)
        object.__setattr__(self, "inputs", tuple(found))

    def kwarg(self, name: str, default: Arg = None) -> Arg:
        """The keyword argument `name`, or `default`."""
        return next((arg for key, arg in self.kwargs if key == name), default)

    def arg(self, position: int, name: str = "", default: Arg = None) -> Arg:
        """The argument at `position`, or by keyword `name`, or `default`."""
        if position < len(self.args):
            return self.args[position]
        return self.kwarg(name, default)


def _collect(arg: Arg, found: list[Value]) -> None:
    if isinstance(arg, Value):
        found.append(arg)
    elif isinstance(arg, tuple):
        for item in arg:
            _collect(item, found)


def map_values(arg: Arg, mapping: dict[int, Value]) -> Arg:
    """`arg` with each value replaced by `mapping[value.id]`."""
    if isinstance(arg, Value):
        return mapping[arg.id]
    if isinstance(arg, tuple):
        return tuple(map_values(item, mapping) for item in arg)
    return arg


def renamed(op: Op, mapping: dict[int, Value]) -> Op:
    """`op` with its operands replaced by id."""
    args = map_values(op.args, mapping)
    assert isinstance(args, tuple)
    kwargs = tuple((name, map_values(arg, mapping)) for name, arg in op.kwargs)
    return replace(op, args=args, kwargs=kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A straight line of ops with inputs and outputs; the unit that repeats."""

    name: str
    inputs: tuple[Value, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Value, ...]


def called(blocks: Iterable[Block], ops: Sequence[Op]) -> tuple[Block, ...]:
    """Those of `blocks` that one of `ops` calls."""
    names = {op.block for op in ops if op.name == CALL}
    return tuple(block for block in blocks if block.name in names)


class NewValues:
    """Gives values with ids of their own, from `first` on."""

    def __init__(self, first: int = 0) -> None:
        self._next_id = first

    @staticmethod
    def of(block: Block) -> "NewValues":
        """Values that `block` does not have."""
        made = (value for op in block.ops for value in op.outputs)
        return NewValues(1 + max((value.id for value in (*block.inputs, *made)), default=0))

    def __call__(self, type_: Type) -> Value:
        value = Value(self._next_id, type_)
        self._next_id += 1
        return value

    def like(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """New ones of the types of `values`."""
        return tuple(self(value.type) for value in values)


def copied(block: Block, inputs: tuple[Value, ...], new: NewValues) -> tuple[list[Op], list[Value]]:
    """The ops of `block` on other inputs, with new values, and what its outputs are then."""
    mapping = {formal.id: actual for formal, actual in zip(block.inputs, inputs, strict=True)}
    ops: list[Op] = []
    for op in block.ops:
        outputs = new.like(op.outputs)
        ops.append(replace(renamed(op, mapping), outputs=outputs))
        mapping |= zip((value.id for value in op.outputs), outputs, strict=True)
    return ops, [mapping[value.id] for value in block.outputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What an input or output of the Program is.

    `of` names the parameter that a piece of optimizer state belongs to.
    """

    name: str
    role: Role
    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A captured step. `updates[i]` is the input that output `i` is the next value of, or None."""

    name: str
    main: Block
    blocks: tuple[Block, ...] = ()
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    updates: tuple[int | None, ...]

    def block(self, name: str) -> Block:
        """The block of that name."""
        return next(block for block in self.blocks if block.name == name)

    def all_blocks(self) -> Iterator[Block]:
        """The repeated blocks, then `main`."""
        yield from self.blocks
        yield self.main

    def counts(self) -> dict[str, int]:
        """How often `main` calls each block."""
        counts = dict.fromkeys((block.name for block in self.blocks), 0)
        for op in self.main.ops:
            if op.name == CALL:
                counts[op.block] += 1
        return counts

    def num_ops(self) -> int:
        """The number of ops one step executes, calls expanded."""
        counts = self.counts()
        inside = sum(len(block.ops) * counts[block.name] for block in self.blocks)
        return len(self.main.ops) - sum(counts.values()) + inside

    def __str__(self) -> str:
        from supernode.ir.printer import print_program

        return print_program(self)
