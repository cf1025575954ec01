"""Microbatches take turns: one computes while what the other sends is on its way.

Parts in time follow one another, so each waits for its own collectives. Here they go through the
program side by side: a part is followed up to a collective, and with it the turn goes to the next.
What each part does, and in which order, stays the same, as do results.

**Source:** DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, section 3.4.1 (prefilling of two
microbatches); SGLang, "Deploying DeepSeek with PD Disaggregation and Large-Scale Expert
Parallelism on 96 H100 GPUs", 2025 (two-batch overlap).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from supernode.ir import CALL, Op, Program, Value, called, renamed
from supernode.partition.fuse import written_out
from supernode.partition.unroll import Tag


def in_turns(local: Program, tags: Sequence[Tag]) -> Program:
    """`local` with the ops of its parts in such an order; `tags` say whose those of main are.

    Blocks are written out, as turns change inside of them.
    """
    calls = frozenset(at for at, op in enumerate(local.main.ops) if op.name == CALL)
    while calls:
        main, origin = written_out(local, calls)
        local, tags = replace(local, main=main), [tags[at] for at in origin]
        calls = frozenset(at for at, op in enumerate(main.ops) if op.name == CALL)
    kept = {value.id for value in local.main.outputs}
    queues = _queues(_apart(zip(local.main.ops, tags, strict=True), kept))
    ops = tuple(_merged(queues, {value.id for value in local.main.inputs}))
    return replace(local, main=replace(local.main, ops=ops), blocks=called((), ops))


def _apart(ops: Iterable[tuple[Op, Tag]], kept: set[int]) -> Iterator[tuple[Op, Tag]]:
    """Without the ops that cut again what parts were joined to: no part waits for another's.

    Values that are `kept` are made as they were.
    """
    joined: dict[int, tuple[tuple[Value, ...], int]] = {}
    stands: dict[int, Value] = {}
    for op, tag in ops:
        if op.name == "local.part" and op.inputs[0].id in joined and op.outputs[0].id not in kept:
            values, dim = joined[op.inputs[0].id]
            _, along, part, parts = op.args[:4]
            assert isinstance(part, int)
            same = (along, parts) == (dim, len(values))
            if same and values[part].type == op.outputs[0].type:
                stands[op.outputs[0].id] = values[part]
                continue
        now = renamed(op, {value.id: stands.get(value.id, value) for value in op.inputs})
        if now.name == "aten.cat" and isinstance(dim := now.arg(1, "dim", 0), int):
            joined[now.outputs[0].id] = now.inputs, dim
        yield now, tag


def _queues(ops: Iterable[tuple[Op, Tag]]) -> list[list[Op]]:
    """The ops of each part; those of all parts are with the part that they stand in."""
    queues: dict[int, list[Op]] = {}
    part = 0
    for op, tag in ops:
        part = part if tag.part is None else tag.part
        queues.setdefault(part, []).append(op)
    return list(queues.values())


def _merged(queues: list[list[Op]], known: set[int]) -> Iterator[Op]:
    """One order of all of them, in which each op finds what it reads."""
    places = [0] * len(queues)
    turn = 0
    while any(place < len(queue) for place, queue in zip(places, queues, strict=True)):
        for op in queues[turn][places[turn] :]:
            if any(value.id not in known for value in op.inputs):
                break  # another part has still to make it
            places[turn] += 1
            known |= {value.id for value in op.outputs}
            yield op
            if op.name.startswith("fabric."):
                break
        turn = (turn + 1) % len(queues)
