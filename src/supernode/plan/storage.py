"""The storages of a program: what takes memory, and from when until when.

A repeated block is walked once for each way its inputs are handed over, not once for each call.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from supernode.ir import CALL, FETCH, RECEIVE, STORE, Block, Op, Phase, Program
from supernode.plan.liveness import PLAIN, Rewrite
from supernode.plan.workspace import workspace_bytes

IsView = Callable[[Op], bool]
WORKSPACE = "workspace"

_PHASE_ORDER: dict[Phase, int] = {"forward": 0, "backward": 1, "optimizer": 2}
_PART_OF_PHASE = {0: "activations", 1: "gradients"}
_LAYER_NUMBER = re.compile(r"(^|(?<=\.))\d+(?=\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Who runs a program, as far as memory goes.

    `writes` says by block where the ops of our own executor write: over a dying operand, or into
    the next epoch of the state. Its collectives are done when they return, and what a stage
    receives lies in its letters. Without, collectives may still run while later ops do, and so
    hold what they read until their result is used.
    """

    is_view: IsView
    writes: Mapping[str, Rewrite] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Storage:
    """One allocation: alive from op `made` through op `last`, or to the end if `held`."""

    size_bytes: int
    module: str = ""
    fixed_part: str = ""
    made: int = -1
    last: int = -1
    held: bool = False
    made_phase: int = 0
    used_phase: int = 0

    @property
    def part(self) -> str:
        """What it is for, by when it is made and used."""
        if self.fixed_part:
            return self.fixed_part
        return {(0, 1): "activations", (1, 2): "gradients"}.get(
            (self.made_phase, self.used_phase), "temporaries"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A block with a storage for each value; `made[i]` and `freed[i]` are those of op `i`.

    Of what is there `at_start`, what nothing reads is let go before the first op.
    """

    block: Block
    storage: Mapping[int, Storage]
    at_start: tuple[Storage, ...]
    made: tuple[tuple[Storage, ...], ...]
    freed: tuple[tuple[Storage, ...], ...]

    @property
    def kept(self) -> tuple[Storage, ...]:
        """What is there at the first op of what is there at the start."""
        return tuple(s for s in self.at_start if s.held or s.last >= 0)


Handover = tuple[tuple[int, int] | None, ...]
"""For each input of a call: None if the caller keeps it, else the first input that shares its
storage, and the size of that storage; the call frees it after its last use inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """A block as its callers see it: for each output the input it shares the storage of, or None.

    `output_of` is the first output with the same storage, `output_bytes` its size, `modules` the
    module that made it. `segments` and `timelines` hold what was found for each way to call it.
    """

    block: Block
    executor: Executor
    input_of: tuple[int | None, ...]
    output_of: tuple[int, ...]
    output_bytes: tuple[int, ...]
    modules: tuple[str, ...]
    segments: dict[Handover, Segment] = field(default_factory=dict["Handover", Segment])
    timelines: dict[Handover, list[int]] = field(default_factory=dict["Handover", list[int]])


Callees = Mapping[str, Callee]


def callees_of(
    program: Program, executor: Executor, known: dict[int, Callee] | None = None
) -> Callees:
    """The repeated blocks, by name; `known` are those by id that other programs share."""
    known = {} if known is None else known
    for block in program.blocks:
        if id(block) not in known:
            known[id(block)] = _callee(block, executor)
    return {block.name: known[id(block)] for block in program.blocks}


def _callee(block: Block, executor: Executor) -> Callee:
    inputs = [Storage(size_bytes=0) for _ in block.inputs]
    walked = segment(block, inputs, {}, executor, _places(block, executor))
    outputs = [walked.storage[value.id] for value in block.outputs]
    positions = {id(storage): i for i, storage in enumerate(inputs)}
    return Callee(
        block=block,
        executor=executor,
        input_of=tuple(positions.get(id(storage)) for storage in outputs),
        output_of=tuple(_first(outputs, storage) for storage in outputs),
        output_bytes=tuple(storage.size_bytes for storage in outputs),
        modules=tuple(storage.module for storage in outputs),
    )


def _places(block: Block, executor: Executor) -> dict[int, Storage]:
    """The destinations that the callers of a block give it, which count as theirs."""
    writes = _writes(block, executor)
    return {p: Storage(size_bytes=0, held=True) for p in (*writes.into.values(), *writes.copied)}


def _writes(block: Block, executor: Executor) -> Rewrite:
    return PLAIN if executor.writes is None else executor.writes[block.name]


def _first(storages: Sequence[Storage], wanted: Storage) -> int:
    return next(i for i, storage in enumerate(storages) if storage is wanted)


def segment(
    block: Block,
    inputs: Sequence[Storage],
    callees: Callees,
    executor: Executor,
    places: Mapping[int, Storage],
    beside: Sequence[Storage] = (),
) -> Segment:
    """`block` walked with these storages as its inputs, and `places` for some of its outputs.

    What lies `beside` is there from the start, and no value's.
    """
    walk = _Walk(block, callees, executor, places)
    storage = {value.id: held for value, held in zip(block.inputs, inputs, strict=True)}
    at_start = tuple(dict.fromkeys((*inputs, *places.values(), *beside)))
    known = set(at_start)
    made: list[tuple[Storage, ...]] = []
    waiting: dict[Storage, list[Storage]] = {}
    for i, op in enumerate(block.ops):
        used = [storage[value.id] for value in op.inputs]
        results = walk.results(i, op, used)
        storage.update(zip((value.id for value in op.outputs), results, strict=True))
        fresh = [s for s in dict.fromkeys(results) if s not in known]
        known.update(fresh)
        phase = _PHASE_ORDER[op.site.phase]
        workspace = walk.workspace(op)
        for new in (*fresh, *workspace):
            new.made, new.last, new.made_phase = i, i, phase
        if executor.writes is None and op.name.startswith("fabric."):
            waiting |= dict.fromkeys(fresh, used)
        elif fresh:  # a view doesn't wait for a collective, what computes does
            used = used + [s for read in used for s in waiting.pop(read, ())]
        for read in used:
            read.last = i
            read.used_phase = max(read.used_phase, phase)
        made.append((*fresh, *workspace))
    for value in block.outputs:
        storage[value.id].held = True
    return Segment(
        block=block,
        storage=storage,
        at_start=at_start,
        made=tuple(made),
        freed=_freed(len(block.ops), (*at_start, *(s for new in made for s in new))),
    )


class _Walk:
    """Where the results of each op lie."""

    def __init__(
        self,
        block: Block,
        callees: Callees,
        executor: Executor,
        places: Mapping[int, Storage],
    ) -> None:
        self._writes = _writes(block, executor)
        self._callees, self._executor, self._places = callees, executor, places

    def results(self, at: int, op: Op, used: Sequence[Storage]) -> list[Storage]:
        if op.name == CALL:
            return self._of_call(at, self._callees[op.block], used)
        if at in self._writes.into:
            return [self._places[self._writes.into[at]]]
        if at in self._writes.inplace or (used and self._executor.is_view(op)):
            return [used[0]] * len(op.outputs)
        module = module_of(op.site.module)
        if op.name in (FETCH, STORE):
            return [_moved(op, used[0], module)]
        if op.name == RECEIVE and self._executor.writes is not None:
            return [Storage(size_bytes=0, module=module) for _ in op.outputs]
        return [Storage(size_bytes=value.type.size_bytes, module=module) for value in op.outputs]

    def workspace(self, op: Op) -> list[Storage]:
        """What the kernel of an op takes while it runs, if anything."""
        size = 0 if self._executor.writes is None else workspace_bytes(op)
        module = module_of(op.site.module)
        return [Storage(size_bytes=size, module=module, fixed_part=WORKSPACE)] if size else []

    def _of_call(self, at: int, callee: Callee, used: Sequence[Storage]) -> list[Storage]:
        into = self._writes.calls.get(at, (None,) * len(callee.input_of))
        results: list[Storage] = []
        for i, (source, place) in enumerate(zip(callee.input_of, into, strict=True)):
            if place is not None:
                results.append(self._places[place])
            elif source is not None:
                results.append(used[source])
            elif callee.output_of[i] < i:
                results.append(results[callee.output_of[i]])
            else:
                size, module = callee.output_bytes[i], callee.modules[i]
                results.append(Storage(size_bytes=size, module=module))
        return results


def _moved(op: Op, source: Storage, module: str) -> Storage:
    """What is fetched or stored is for what its source is for; what is elsewhere takes nothing."""
    part = source.fixed_part or _PART_OF_PHASE.get(source.made_phase, "")
    if op.name == STORE:
        return Storage(size_bytes=0, module=module, fixed_part=part)
    size_bytes = op.outputs[0].type.size_bytes
    return Storage(size_bytes=size_bytes, module=source.module, fixed_part=part)


@lru_cache(maxsize=4096)
def module_of(path: str) -> str:
    """The path of a module with its layer numbers as `*`."""
    return _LAYER_NUMBER.sub("*", path)


def _freed(num_ops: int, storages: Sequence[Storage]) -> tuple[tuple[Storage, ...], ...]:
    freed: list[list[Storage]] = [[] for _ in range(num_ops)]
    for storage in storages:
        if not storage.held and storage.last >= 0:
            freed[storage.last].append(storage)
    return tuple(map(tuple, freed))


def timeline(walked: Segment, callees: Callees) -> list[int]:
    """The bytes in use while each op runs, calls expanded."""
    live = sum(storage.size_bytes for storage in walked.kept)
    found: list[int] = []
    for i, op in enumerate(walked.block.ops):
        freed = sum(storage.size_bytes for storage in walked.freed[i])
        made = sum(storage.size_bytes for storage in walked.made[i])
        if op.name == CALL:
            handed, inner = called(walked, i, callees)
            rest = live - sum(storage.size_bytes for storage in inner.at_start)
            times = callees[op.block].timelines
            if handed not in times:
                times[handed] = timeline(inner, {})
            found += [rest + size for size in times[handed]]
        else:
            found.append(live + made)
        live += made - freed
    return found


def called(walked: Segment, at: int, callees: Callees) -> tuple[Handover, Segment]:
    """How call `at` hands its inputs over, and its block walked that way."""
    op = walked.block.ops[at]
    used = [walked.storage[value.id] for value in op.inputs]
    freed = set(walked.freed[at])
    handed: Handover = tuple(
        (_first(used, storage), storage.size_bytes) if storage in freed else None
        for storage in used
    )
    callee = callees[op.block]
    if handed not in callee.segments:
        inputs: list[Storage] = []
        for i, given in enumerate(handed):
            if given is None:
                inputs.append(Storage(size_bytes=0, held=True))
            elif given[0] < i:
                inputs.append(inputs[given[0]])
            else:
                inputs.append(Storage(size_bytes=given[1]))
        places = _places(callee.block, callee.executor)
        callee.segments[handed] = segment(callee.block, inputs, {}, callee.executor, places)
    return handed, callee.segments[handed]


def live_at(walked: Segment, callees: Callees, wanted: int) -> list[Storage]:
    """The storages in use while op `wanted` (calls expanded) runs."""
    live = dict.fromkeys(walked.kept)
    first = 0
    for i, op in enumerate(walked.block.ops):
        length = len(callees[op.block].block.ops) if op.name == CALL else 1
        if wanted < first + length:
            if op.name != CALL:
                return [*live, *walked.made[i]]
            _, inner = called(walked, i, callees)
            inside = live_at(inner, {}, wanted - first)
            return _joined(walked, op, live, inner, inside, callees[op.block])
        live |= dict.fromkeys(walked.made[i])
        for storage in walked.freed[i]:
            live.pop(storage, None)
        first += length
    return list(live)


def _joined(
    walked: Segment,
    op: Op,
    live: Mapping[Storage, None],
    inner: Segment,
    inside: list[Storage],
    callee: Callee,
) -> list[Storage]:
    """What lives during a call: the caller's storages under their own names, then the callee's."""
    outer: dict[Storage, Storage] = {}
    copied = _writes(callee.block, callee.executor).copied
    for i, (value, given) in enumerate(zip(inner.block.outputs, op.outputs, strict=True)):
        if i not in copied:  # until the block ends that lies beside the destination
            outer[inner.storage[value.id]] = walked.storage[given.id]
    for value, given in zip(inner.block.inputs, op.inputs, strict=True):
        outer[inner.storage[value.id]] = walked.storage[given.id]
    handed_over = {outer[storage] for storage in inner.at_start if storage.size_bytes}
    kept = [storage for storage in live if storage not in handed_over]
    known = set(kept)
    return kept + [s for s in (outer.get(found, found) for found in inside) if s not in known]
