"""What the stages of a pipeline send each other in a step, read off the Plan."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from supernode.ir import RECEIVE, SEND, HostType, Op
from supernode.plan import Crossing, Plan, crossings_of
from supernode.run.fabric import Fabric, Group, Letter, Mailbox


def mailbox_of(plan: Plan, fabric: Fabric) -> Mailbox:
    """The mailbox of a chip; where stages differ, it is asked by stage instead of by rank."""
    rank = fabric.rank
    mailbox = fabric.mailbox(letters_of(plan, rank), pipe_of(plan, rank))
    return PartsMailbox(mailbox, plan, rank) if plan.mesh.stages else mailbox


def pipe_of(plan: Plan, rank: int) -> Group:
    """The chips that `rank` exchanges letters with, one a stage, all of them where stages differ;
    `rank` alone without stages."""
    if plan.mesh.stages:
        return tuple(range(plan.mesh.size))
    if not plan.is_staged:
        return (rank,)
    axis, _ = plan.starts[0]
    return plan.mesh.group(rank, axis)


def letters_of(plan: Plan, rank: int) -> list[Letter]:
    """All that the chips of `pipe_of` send each other, in the order in which each sends."""
    if plan.mesh.stages:
        return list(_letters_of_stages(plan))
    group = pipe_of(plan, rank)
    letters: list[Letter] = []
    for source in group:
        for op in _sends(plan, source):
            place = op.args[2]
            assert isinstance(place, int)
            shape = () if isinstance(op.inputs[0].type, HostType) else op.inputs[0].type.shape
            letters.append(_letter(op, source, group[place], shape))
    return letters


def _letters_of_stages(plan: Plan) -> Iterator[Letter]:
    for stage, mesh in enumerate(plan.mesh.stages):
        for op in _sends(plan, mesh.first):
            crossings = crossings_of(op, plan.mesh, stage)
            parts = Counter(each.target for each in crossings)
            for each in crossings:
                letter = _letter(op, each.source, each.target, each.shape)
                if parts[each.target] > 1:
                    letter = replace(letter, piece=each.piece, box=each.received)
                yield letter


def _sends(plan: Plan, rank: int) -> Iterator[Op]:
    return (op for op in plan.local_of(rank).main.ops if op.name == SEND)


def _letter(op: Op, source: int, target: int, shape: tuple[int, ...]) -> Letter:
    key = op.args[3]
    assert isinstance(key, int)
    dtype = getattr(torch, op.inputs[0].type.dtype)
    return Letter(source=source, target=target, key=key, shape=shape, dtype=dtype)


class PartsMailbox(Mailbox):
    """Letters to and from all chips of a stage of another layout, each a part of a value.

    `send` and `receive` take the number of the stage in the place of a rank.
    """

    def __init__(self, letters: Mailbox, plan: Plan, rank: int) -> None:
        self._letters, self._rank = letters, rank
        self.room_bytes = letters.room_bytes
        stage = plan.mesh.stages.index(plan.mesh.around(rank))
        self._sent: dict[tuple[int, int], list[Crossing]] = defaultdict(list)
        self._sources: dict[tuple[int, int], list[int]] = {}
        for op in plan.local_of(rank).main.ops:
            if op.name in (SEND, RECEIVE):
                self._note(op, crossings_of(op, plan.mesh, stage))

    def _note(self, op: Op, parts: tuple[Crossing, ...]) -> None:
        stage, key = op.args[2:4]
        assert isinstance(stage, int)
        assert isinstance(key, int)
        if op.name == SEND:
            self._sent[stage, key] = [each for each in parts if each.source == self._rank]
            return
        self._sources[stage, key] = [e.source for e in parts if e.target == self._rank]

    def begin(self, number: int) -> None:
        self._letters.begin(number)

    def send(self, x: Tensor, rank: int, key: int) -> None:
        for each in self._sent[rank, key]:
            self._letters.send(x[each.sent], each.target, key)

    def receive(self, rank: int, key: int) -> Tensor:
        return self.receive_piece(self._sources[rank, key], key)

    def receive_piece(self, ranks: Sequence[int], key: int) -> Tensor:
        return self._letters.receive_piece(ranks, key)
