"""From a recording to a Program: ports, without dead ops, values numbered in order."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from supernode.capture.host import HostNode
from supernode.capture.record import Recording
from supernode.ir import Block, Op, Port, Program, Value, map_values, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One leaf of what the step returns: output `index` of the Program, or a fixed object.

    `is_item` says that the step took `.item()` of that output.
    """

    index: int | None
    fixed: Any = None
    is_item: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A Program with what belongs to its ports."""

    program: Program
    constants: dict[str, Tensor]
    slots: list[Slot]


def build(name: str, run: Recording, optional: set[str]) -> Built:
    """The Program of a recording.

    `optional` names the state that is an input only if the step uses it.
    """
    slots, outputs = _results(run)
    constants = _constants(run)
    inputs = [*run.inputs, *((port, value) for port, value, _ in constants)]
    updates: list[int | None] = [None] * len(outputs)
    returned = [value for _, value in outputs]
    changed = _changed(inputs, run)
    live = _live(_ops(run), [*returned, *changed.values()])
    inputs = [
        (port, value)
        for port, value in inputs
        if value.id in live.used or not (port.role == "host" or port.name in optional)
    ]
    for index, (port, value) in enumerate(inputs):
        if value.id in changed:
            outputs.append((port, changed[value.id]))
            updates.append(index)
    program = _numbered(name, inputs, live.ops, outputs, tuple(updates))
    kept = {port.name: tensor for port, _, tensor in constants}
    return Built(program=verify(program), constants=kept, slots=slots)


def _results(run: Recording) -> tuple[list[Slot], list[tuple[Port, Value]]]:
    """What the step returns, and then what it checks."""
    slots: list[Slot] = []
    outputs: list[tuple[Port, Value]] = []
    for path, leaf in run.results:
        is_item = isinstance(leaf, HostNode) and leaf.source is not None
        value = leaf.source or leaf.value if isinstance(leaf, HostNode) else leaf
        if not isinstance(value, Value):
            slots.append(Slot(index=None, fixed=value))
            continue
        slots.append(Slot(index=len(outputs), is_item=is_item))
        outputs.append((Port(name=f"result{path}", role="result"), value))
    for index, check in enumerate(run.recorder.checks):
        outputs.append((Port(name=f"check[{index}]", role="result"), check.value))
    return slots, outputs


def _constants(run: Recording) -> list[tuple[Port, Value, Tensor]]:
    return [
        (Port(name=f"constant[{i}]", role="constant"), value, tensor)
        for i, (value, tensor) in enumerate(run.recorder.tensors.constants)
    ]


def _changed(inputs: list[tuple[Port, Value]], run: Recording) -> dict[int, Value]:
    """By the id of an input, the value that replaces it."""
    changed: dict[int, Value] = {}
    for port, value in inputs:
        after = run.updates.get(port.name) if port.role in ("param", "buffer", "state") else None
        if after is not None and after != value:
            changed[value.id] = after
    return changed


@dataclass(frozen=True, slots=True)
class _Live:
    ops: list[Op]
    used: set[int]


def _ops(run: Recording) -> list[Op]:
    recorder = run.recorder
    return [*recorder.tensors.draws.prelude, *recorder.tape.ops]


def _live(ops: list[Op], outputs: list[Value]) -> _Live:
    """The ops that outputs depend on."""
    used = {value.id for value in outputs}
    kept: list[Op] = []
    for op in reversed(ops):
        if any(out.id in used for out in op.outputs):
            used.update(value.id for value in op.inputs)
            kept.append(op)
    kept.reverse()
    return _Live(kept, used)


def _numbered(
    name: str,
    inputs: list[tuple[Port, Value]],
    ops: list[Op],
    outputs: list[tuple[Port, Value]],
    updates: tuple[int | None, ...],
) -> Program:
    mapping: dict[int, Value] = {}

    def fresh(value: Value) -> Value:
        return mapping.setdefault(value.id, Value(len(mapping), value.type))

    block_inputs = tuple(fresh(value) for _, value in inputs)
    block_ops = tuple(
        Op(
            name=op.name,
            args=tuple(map_values(arg, mapping) for arg in op.args),
            kwargs=tuple((key, map_values(arg, mapping)) for key, arg in op.kwargs),
            outputs=tuple(fresh(value) for value in op.outputs),
            site=op.site,
        )
        for op in ops
    )
    main = Block(
        name="main",
        inputs=block_inputs,
        ops=block_ops,
        outputs=tuple(mapping[value.id] for _, value in outputs),
    )
    return Program(
        name=name,
        main=main,
        inputs=tuple(port for port, _ in inputs),
        outputs=tuple(port for port, _ in outputs),
        updates=updates,
    )
