"""All chips of a Plan in one process, in lock step: the meaning of a Plan, without speed.

An independent reference for the partition and for the real fabric: an interpreter of the local
program that holds every chip's values side by side and computes collectives directly.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from supernode.ir import CALL, Arg, Block, DType, Op, Program, Value
from supernode.kernels import LOCAL, RANDOM, piece_of
from supernode.kernels.surroundings import OneChip
from supernode.ops.random import piece_arguments
from supernode.plan import Plan

Chips = list[dict[int, Any]]


def run_program(program: Program, inputs: Sequence[Any]) -> list[Any]:
    """A Program on one chip."""
    values: Chips = [dict(zip((v.id for v in program.main.inputs), inputs, strict=True))]
    _block([program], program.main.name, values, None)
    return [values[0][v.id] for v in program.main.outputs]


def run_plan(plan: Plan, inputs: Sequence[Any]) -> list[Any]:
    """Global outputs from global inputs; replicas must agree exactly."""
    ranks = range(plan.mesh.size)
    programs = [plan.local_of(rank) for rank in ranks]
    values: Chips = [{} for _ in ranks]
    for i, (layout, whole) in enumerate(zip(plan.inputs, inputs, strict=True)):
        for rank, program in enumerate(programs):
            value, piece = program.main.inputs[i], whole
            if layout is not None:
                piece = whole[layout.slices(tuple(whole.shape), plan.mesh, rank)].clone()
            values[rank][value.id] = piece
    _block(programs, plan.local.main.name, values, plan)
    outs = []
    for i, (whole, layout) in enumerate(zip(plan.program.main.outputs, plan.outputs, strict=True)):
        pieces = [values[rank][programs[rank].main.outputs[i].id] for rank in ranks]
        if layout is None:
            outs.append(pieces[0])
            continue
        outs.append(_assemble(plan, whole.tensor.shape, layout, pieces))
    return outs


def _assemble(plan: Plan, shape: tuple[int, ...], layout: Any, pieces: list[Tensor]) -> Tensor:
    assert not layout.partial
    out = torch.empty(shape, dtype=pieces[0].dtype)
    seen: dict[tuple[Any, ...], Tensor] = {}
    for rank, piece in enumerate(pieces):
        slices = layout.slices(shape, plan.mesh, rank)
        out[slices] = piece
        key = tuple((s.start, s.stop) for s in slices)
        torch.testing.assert_close(piece, seen.setdefault(key, piece), rtol=0, atol=0)
    return out


def _block(programs: list[Program], name: str, values: Chips, plan: Plan | None) -> None:
    blocks = [_named(program, name) for program in programs]
    for ops in zip(*(block.ops for block in blocks), strict=True):
        first = ops[0]
        assert {op.name for op in ops} == {first.name}
        if first.name == CALL:
            callees = [program.block(op.block) for program, op in zip(programs, ops, strict=True)]
            inner: Chips = [
                {f.id: chip[a.id] for f, a in zip(callee.inputs, op.inputs, strict=True)}
                for callee, op, chip in zip(callees, ops, values, strict=True)
            ]
            _block(programs, first.block, inner, plan)
            for callee, op, chip, inside in zip(callees, ops, values, inner, strict=True):
                for formal, actual in zip(callee.outputs, op.outputs, strict=True):
                    chip[actual.id] = inside[formal.id]
        elif first.name.startswith("fabric."):
            assert plan is not None
            _collective(ops, values, plan)
        else:
            for rank, (op, chip) in enumerate(zip(ops, values, strict=True)):
                outs = _compute(op, chip, rank, plan)
                known = all(_is_as_planned(chip[v.id], v) for v in op.inputs)
                for value, out in zip(op.outputs, outs, strict=True):
                    chip[value.id] = out
                    if isinstance(out, Tensor) and known and op.name != "local.expert_order":
                        assert tuple(out.shape) == value.tensor.shape, (op, out.shape)


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
        mesh = plan.mesh if plan else None
        at = plan.mesh.coordinates(rank) if plan else {}
        out = LOCAL[name](*args, **kwargs, coordinate=at, mesh=mesh)
    elif room == "random":
        mesh = plan.mesh if plan else OneChip()
        args[3] = piece_of(*piece_arguments(op), mesh, rank, args[2] >> 32)
        kwargs.pop("cuts", None)
        out = RANDOM[name](*args, **kwargs)
    elif room == "host":
        return [_HOST[name](*args)]
    else:
        packet, _, overload = name.partition(".")
        function = getattr(getattr(torch.ops.aten, packet), overload or "default")
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


def _collective(ops: tuple[Op, ...], values: Chips, plan: Plan) -> None:
    _, axis, *rest = ops[0].args
    assert isinstance(axis, str)
    kind = ops[0].name.removeprefix("fabric.")
    if kind == "all_to_all_rows":
        _exchange_rows(ops, values, plan)
        return
    for i, value in enumerate(ops[0].inputs):
        results: dict[int, Tensor] = {}
        for rank in range(plan.mesh.size):
            members = plan.mesh.group(rank, axis)
            parts = [values[member][ops[member].inputs[i].id] for member in members]
            results[rank] = _result(kind, parts, members.index(rank), i, rest)
        for rank, result in results.items():
            out = ops[rank].outputs[i]
            known = _is_as_planned(values[rank][value.id], ops[rank].inputs[i])
            assert not known or tuple(result.shape) == out.tensor.shape
            values[rank][out.id] = result


def _exchange_rows(ops: tuple[Op, ...], values: Chips, plan: Plan) -> None:
    op = ops[0]
    (value,), axis, peers, back = op.args
    pieces = {
        rank: chip[value.id].split(chip[peers.id][int(back)].tolist())
        for rank, chip in enumerate(values)
    }
    for rank, chip in enumerate(values):
        members = plan.mesh.group(rank, axis)
        arrived = torch.cat([pieces[member][members.index(rank)] for member in members])
        assert len(arrived) == int(chip[peers.id][1 - int(back)].sum())
        chip[op.outputs[0].id] = arrived


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
