"""All chips of a Plan in one process, in lock step: the meaning of a Plan, without speed.

An independent reference for the partition and for the real fabric: an interpreter of the local
program that holds every chip's values side by side and computes collectives directly.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from supernode.ir import CALL, Arg, Block, DType, Op, Program, Value
from supernode.kernels import LOCAL, RANDOM, piece_of
from supernode.kernels.surroundings import OneChip
from supernode.ops.random import piece_arguments
from supernode.plan import Layout, Mesh, Plan

Chips = dict[int, dict[int, Any]]
"""The values of each chip, by rank."""
Programs = dict[int, Program]


def run_program(program: Program, inputs: Sequence[Any]) -> list[Any]:
    """A Program on one chip."""
    values: Chips = {0: dict(zip((v.id for v in program.main.inputs), inputs, strict=True))}
    for _ in _block({0: program}, program.main.name, values, None, {}):
        raise AssertionError("one chip waits for nobody")
    return [values[0][v.id] for v in program.main.outputs]


def run_plan(plan: Plan, inputs: Sequence[Any]) -> list[Any]:
    """Global outputs from global inputs; replicas must agree exactly."""
    ranks = range(plan.mesh.size)
    programs = [plan.local_of(rank) for rank in ranks]
    values: Chips = {rank: {} for rank in ranks}
    for i, (layout, whole) in enumerate(zip(plan.inputs, inputs, strict=True)):
        for rank, program in enumerate(programs):
            value, piece = program.main.inputs[i], whole
            if layout is not None:
                shape = layout.local_shape(tuple(whole.shape), plan.mesh, rank)
                piece = whole.new_empty(shape)
                for there, here in layout.boxes(tuple(whole.shape), plan.mesh, rank):
                    piece[here] = whole[there]
            values[rank][value.id] = piece
    _run(plan, programs, values)
    outs = []
    for i, (whole, layout) in enumerate(zip(plan.program.main.outputs, plan.outputs, strict=True)):
        pieces = [values[rank][programs[rank].main.outputs[i].id] for rank in ranks]
        if layout is None:
            outs.append(pieces[0])
            continue
        outs.append(_assemble(plan, whole.tensor.shape, layout, pieces))
    return outs


def _assemble(plan: Plan, shape: tuple[int, ...], layout: Layout, pieces: list[Tensor]) -> Tensor:
    assert not layout.partial
    held = {rank: each for rank, each in enumerate(pieces) if layout.holds(plan.mesh, rank)}
    return _joined(plan.mesh, shape, layout, held)


def _joined(mesh: Mesh, shape: Any, layout: Layout, pieces: Mapping[int, Tensor]) -> Tensor:
    """The whole value whose pieces some chips hold; those alike must be equal."""
    out = torch.empty(shape, dtype=next(iter(pieces.values())).dtype)
    seen: dict[str, Tensor] = {}
    for rank, piece in pieces.items():
        boxes = list(layout.boxes(shape, mesh, rank))
        for there, here in boxes:
            out[there] = piece[here]
        first = seen.setdefault(str(boxes), piece)
        torch.testing.assert_close(piece, first, rtol=0, atol=0, equal_nan=True)
    return out


def _run(plan: Plan, programs: list[Program], values: Chips) -> None:
    """The stages of a pipeline in turns, each until it waits; without stages all chips at once."""
    groups: dict[int, Programs] = {}
    for rank, program in enumerate(programs):
        stage = plan.mesh.coordinates(rank)["pp"] if plan.is_staged else 0
        groups.setdefault(stage, {})[rank] = program
    sent: dict[tuple[int, int], Any] = {}
    name = plan.local.main.name
    running = [_block(group, name, values, plan, sent) for group in groups.values()]
    while running:
        moved = [stage for stage in running if next(stage, "done") != "waits"]
        running = [stage for stage in running if stage not in moved]
        assert moved or sent.pop((-1, -1), None), "stages wait for each other"


def _block(
    programs: Programs, name: str, values: Chips, plan: Plan | None, sent: dict[Any, Any]
) -> Iterator[str]:
    """Runs a block on some chips in lock step; yields where they wait for another stage."""
    blocks = {rank: _named(program, name) for rank, program in programs.items()}
    for each in zip(*(block.ops for block in blocks.values()), strict=True):
        ops = dict(zip(blocks, each, strict=True))
        first = each[0]
        assert {op.name for op in each} == {first.name}
        if first.name == CALL:
            callees = {rank: programs[rank].block(op.block) for rank, op in ops.items()}
            inner: Chips = {}
            for rank, op in ops.items():
                pairs = zip(callees[rank].inputs, op.inputs, strict=True)
                inner[rank] = {f.id: values[rank][a.id] for f, a in pairs}
            yield from _block(programs, first.block, inner, plan, sent)
            for rank, op in ops.items():
                for formal, actual in zip(callees[rank].outputs, op.outputs, strict=True):
                    values[rank][actual.id] = inner[rank][formal.id]
        elif first.name == "fabric.send":
            assert plan is not None
            for rank, op in ops.items():
                if plan.mesh.stages:
                    sent[op.args[2], rank, op.args[3]] = values[rank][op.inputs[0].id]
                else:
                    sent[_peer(plan, rank, op), op.args[3]] = values[rank][op.inputs[0].id]
            sent[-1, -1] = True
        elif first.name == "fabric.receive" and plan is not None and plan.mesh.stages:
            source, key, theirs, own, shape = first.args[2:]
            stage = plan.mesh.coordinates(min(ops))["pp"]
            senders = plan.mesh.stages[source]
            ranks = range(senders.first, senders.first + senders.size)
            while not all((stage, rank, key) in sent for rank in ranks):
                yield "waits"
            pieces = {rank: sent[stage, rank, key] for rank in ranks}
            if isinstance(pieces[senders.first], Tensor):
                whole = _joined(senders, shape, Layout(theirs), pieces)
            for rank, op in ops.items():
                made = pieces[senders.first]
                if isinstance(made, Tensor):
                    made = whole[Layout(own).slices(shape, plan.mesh, rank)]
                values[rank][op.outputs[0].id] = made
        elif first.name == "fabric.receive":
            while not all((rank, op.args[3]) in sent for rank, op in ops.items()):
                yield "waits"
            for rank, op in ops.items():
                values[rank][op.outputs[0].id] = sent[rank, op.args[3]]
        elif first.name.startswith("fabric."):
            assert plan is not None
            _collective(ops, values, plan)
        else:
            for rank, op in ops.items():
                outs = _compute(op, values[rank], rank, plan)
                known = all(_is_as_planned(values[rank][v.id], v) for v in op.inputs)
                for value, out in zip(op.outputs, outs, strict=True):
                    values[rank][value.id] = out
                    if isinstance(out, Tensor) and known and op.name not in _ROUTED:
                        assert tuple(out.shape) == value.tensor.shape, (op, out.shape)


_ROUTED = ("local.expert_order", "local.own_rows")
"""What makes as many rows as routing says of operands whose sizes are planned."""


def _peer(plan: Plan, rank: int, op: Op) -> int:
    """Who gets what `rank` sends: the chip at the same place of another stage."""
    _, axis, stage, _ = op.args
    assert isinstance(axis, str)
    assert isinstance(stage, int)
    return plan.mesh.rank(plan.mesh.coordinates(rank) | {axis: stage})


def _named(program: Program, name: str) -> Block:
    return program.main if name == program.main.name else program.block(name)


def _is_as_planned(held: Any, value: Value) -> bool:
    """Whether a value has the number of rows of its type, not one that routing has given it."""
    return not isinstance(held, Tensor) or tuple(held.shape) == value.tensor.shape


def _compute(op: Op, chip: Mapping[int, Any], rank: int, plan: Plan | None) -> Sequence[Any]:
    args = [_arg(arg, chip) for arg in op.args]
    kwargs = {name: _arg(arg, chip) for name, arg in op.kwargs}
    room, _, name = op.name.partition(".")
    if room == "local":
        assert plan is not None or name != "shard"
        mesh = plan.mesh.around(rank) if plan else None
        at = plan.mesh.coordinates(rank) if plan else {}
        out = LOCAL[name](*args, **kwargs, coordinate=at, mesh=mesh)
    elif room == "random":
        mesh = plan.mesh.around(rank) if plan else OneChip()
        args[3] = piece_of(*piece_arguments(op), mesh, rank, args[2] >> 32)
        kwargs.pop("cuts", None)
        out = RANDOM[name](*args, **kwargs)
    elif room == "place":
        # What is moved is a copy: nobody's later writing reaches it.
        return [] if name == "wait" else [args[0].clone()]
    elif room == "host":
        return [_HOST[name](*args)]
    else:
        packet, _, overload = name.partition(".")
        function = getattr(getattr(getattr(torch.ops, room), packet), overload or "default")
        if packet in ("view", "_unsafe_view"):
            function = torch.ops.aten.reshape.default
        out = function(*args, **kwargs)
    return [o for o in out if o is not None] if isinstance(out, tuple | list) else [out]


_HOST = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "truediv": lambda a, b: a / b,
    "pow": lambda a, b: a**b if a > 0 or b == int(b) else float("nan"),
    "int": int,
    "neg": lambda a: -a,
    "min": min,
    "max": max,
    "gt": lambda a, b: a > b,
    "ne": lambda a, b: a != b,
    "sqrt": lambda a: a**0.5,
}
_FORMATS = {"contiguous_format": torch.contiguous_format, "preserve_format": torch.preserve_format}


def _arg(arg: Arg, chip: Mapping[int, Any]) -> Any:
    if isinstance(arg, Value):
        return chip[arg.id]
    if isinstance(arg, DType):
        return getattr(torch, arg.name)
    if isinstance(arg, tuple):
        return [_arg(item, chip) for item in arg]
    return _FORMATS.get(arg, arg) if isinstance(arg, str) else arg


def _collective(ops: dict[int, Op], values: Chips, plan: Plan) -> None:
    first = next(iter(ops.values()))
    _, axis, *rest = first.args
    assert isinstance(axis, str)
    kind = first.name.removeprefix("fabric.")
    if kind == "all_to_all_rows":
        _exchange_rows(ops, values, plan)
        return
    for i in range(len(first.outputs)):
        results: dict[int, Tensor] = {}
        for rank in ops:
            members = plan.mesh.group(rank, axis)
            parts = [values[member][ops[member].inputs[i].id] for member in members]
            results[rank] = _result(kind, parts, members.index(rank), i, rest)
        for rank, result in results.items():
            out = ops[rank].outputs[i]
            source = ops[rank].inputs[i]
            known = _is_as_planned(values[rank][source.id], source)
            assert not known or tuple(result.shape) == out.tensor.shape
            values[rank][out.id] = result


def _exchange_rows(ops: dict[int, Op], values: Chips, plan: Plan) -> None:
    pieces: dict[int, Any] = {}
    for rank, op in ops.items():
        (value,), _, peers, back = op.args
        chip = values[rank]
        pieces[rank] = chip[value.id].split(chip[peers.id][int(back)].tolist())
    for rank, op in ops.items():
        _, axis, peers, back = op.args
        members = plan.mesh.group(rank, axis)
        arrived = torch.cat([pieces[member][members.index(rank)] for member in members])
        assert len(arrived) == int(values[rank][peers.id][1 - int(back)].sum())
        values[rank][op.outputs[0].id] = arrived


def _result(kind: str, parts: list[Tensor], me: int, i: int, rest: list[Any]) -> Tensor:
    n = len(parts)
    assert len({part.shape for part in parts}) == 1, "collectives move pieces of one size"
    if kind == "all_reduce":
        return _reduce(parts, rest[0])
    if kind == "reduce_scatter":
        dims, op = rest
        return _reduce(parts, op).chunk(n, dims[i])[me].clone()
    if kind == "all_gather":
        return torch.cat(parts, rest[0][i])
    assert kind == "all_to_all"
    split, concat = rest
    return torch.cat([part.chunk(n, split[i])[me] for part in parts], concat[i])


def _reduce(parts: list[Tensor], op: str) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total = {"sum": torch.add, "max": torch.maximum, "min": torch.minimum}[op](total, part)
    return total
