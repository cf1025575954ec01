"""How much memory one chip needs for a step, by liveness.

A value takes memory from the op that makes it until its last use. A view takes none and keeps its
base alive. State lives always, updates happen in place: an updated parameter gives its memory
back after its last use, and its next value takes as much from when it is made. The buffers that a
collective reads stay until its result is first used, since it may still be running.

A repeated block is walked once for each way its inputs are handed over, not once for each call.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from supernode.ir import CALL, Block, Op, Phase, Port, Program
from supernode.ops import is_view

PARTS = ("parameters", "optimizer state", "gradients", "activations", "temporaries", "inputs")
"""What memory is for. Activations are made in the forward and used in the backward phase,
gradients made in the backward phase and used by the optimizer; temporaries are all the rest."""

IsView = Callable[[Op], bool]

_PART_OF_ROLE = {
    "param": "parameters",
    "buffer": "parameters",
    "state": "optimizer state",
    "host": "inputs",
    "arg": "inputs",
    "constant": "inputs",
}
_PHASE_ORDER: dict[Phase, int] = {"forward": 0, "backward": 1, "optimizer": 2}
_LAYER_NUMBER = re.compile(r"(^|(?<=\.))\d+(?=\.|$)")
TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """The memory of one chip over a step.

    `parts` (by name, all of `PARTS`) and `modules` (the largest few, layer numbers as `*`) say
    what holds `peak_bytes` at the peak. `timeline[i]` are the bytes in use while op `i` runs, with
    calls expanded.
    """

    peak_bytes: int
    parts: Mapping[str, int] = field(hash=False)
    modules: tuple[tuple[str, int], ...]
    timeline: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """A buffer that is taken at op `first` already, where it is made by op `last`."""

    first: int
    last: int
    size_bytes: int


def memory(
    program: Program, is_view: IsView = is_view, *, early: Iterable[Early] = ()
) -> MemoryUse:
    """What `program`, the program of one chip, needs; `early` counts ops with calls expanded.

    Allocators round sizes up and leave gaps, and some kernels need workspace: neither is counted.
    """
    callees = {block.name: _callee(block, is_view) for block in program.blocks}
    main = _main(program, callees, is_view)
    timeline = _timeline(main, callees)
    ahead = [0] * len(timeline)
    for buffer in early:
        for i in range(buffer.first, buffer.last):
            ahead[i] += buffer.size_bytes
    timeline = [size + more for size, more in zip(timeline, ahead, strict=True)]
    peak = max(range(len(timeline)), key=lambda i: timeline[i], default=0)
    live = _live_at(main, callees, peak)
    waiting = ahead[peak] if ahead else 0
    parts, modules = Counter(temporaries=waiting), Counter({"(sent early)": waiting})
    for storage in live:
        parts[storage.part] += storage.size_bytes
        modules[storage.module or "(step)"] += storage.size_bytes
    top = sorted(((m, n) for m, n in modules.items() if n), key=lambda item: (-item[1], item[0]))
    return MemoryUse(
        peak_bytes=parts.total(),
        parts={part: parts[part] for part in PARTS},
        modules=tuple(top[:TOP]),
        timeline=tuple(timeline),
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Storage:
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
        if self.fixed_part:
            return self.fixed_part
        return {(0, 1): "activations", (1, 2): "gradients"}.get(
            (self.made_phase, self.used_phase), "temporaries"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    """A block with a storage for each value; `made[i]` and `freed[i]` are those of op `i`."""

    block: Block
    storage: Mapping[int, _Storage]
    at_start: tuple[_Storage, ...]
    made: tuple[tuple[_Storage, ...], ...]
    freed: tuple[tuple[_Storage, ...], ...]


Handover = tuple[tuple[int, int] | None, ...]
"""For each input of a call: None if the caller keeps it, else the first input that shares its
storage, and the size of that storage; the call frees it after its last use inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Callee:
    """A block as its callers see it: for each output the input it is a view of, or None.

    `output_of` is the first output with the same storage, `output_bytes` its size, `modules` the
    module that made it. `segments` and `timelines` hold what was found for each way to call it.
    """

    block: Block
    is_view: IsView
    input_of: tuple[int | None, ...]
    output_of: tuple[int, ...]
    output_bytes: tuple[int, ...]
    modules: tuple[str, ...]
    segments: dict[Handover, _Segment] = field(default_factory=dict["Handover", _Segment])
    timelines: dict[Handover, list[int]] = field(default_factory=dict["Handover", list[int]])


def _callee(block: Block, is_view: IsView) -> _Callee:
    inputs = [_Storage(size_bytes=0) for _ in block.inputs]
    segment = _segment(block, inputs, {}, is_view)
    outputs = [segment.storage[value.id] for value in block.outputs]
    positions = {id(storage): i for i, storage in enumerate(inputs)}
    return _Callee(
        block=block,
        is_view=is_view,
        input_of=tuple(positions.get(id(storage)) for storage in outputs),
        output_of=tuple(_first(outputs, storage) for storage in outputs),
        output_bytes=tuple(storage.size_bytes for storage in outputs),
        modules=tuple(storage.module for storage in outputs),
    )


def _first(storages: Sequence[_Storage], wanted: _Storage) -> int:
    return next(i for i, storage in enumerate(storages) if storage is wanted)


def _main(program: Program, callees: Mapping[str, _Callee], is_view: IsView) -> _Segment:
    updated = {source for source in program.updates if source is not None}
    inputs = [
        _Storage(
            size_bytes=value.type.size_bytes,
            module=_port_module(port),
            fixed_part=_PART_OF_ROLE[port.role],
            held=i not in updated,
        )
        for i, (port, value) in enumerate(zip(program.inputs, program.main.inputs, strict=True))
    ]
    main = _segment(program.main, inputs, callees, is_view)
    for value, source in zip(program.main.outputs, program.updates, strict=True):
        if source is not None:
            main.storage[value.id].fixed_part = inputs[source].fixed_part
    return main


def _port_module(port: Port) -> str:
    name = port.of or port.name
    return _LAYER_NUMBER.sub("*", name.rpartition(".")[0] or name)


def _segment(
    block: Block, inputs: list[_Storage], callees: Mapping[str, _Callee], is_view: IsView
) -> _Segment:
    storage = {value.id: held for value, held in zip(block.inputs, inputs, strict=True)}
    made: list[tuple[_Storage, ...]] = []
    waiting: dict[_Storage, list[_Storage]] = {}
    for i, op in enumerate(block.ops):
        used = [storage[value.id] for value in op.inputs]
        results = _results(op, used, callees, is_view)
        storage.update(zip((value.id for value in op.outputs), results, strict=True))
        fresh = [s for s in dict.fromkeys(results) if s not in used]
        phase = _PHASE_ORDER[op.site.phase]
        for new in fresh:
            new.made, new.last, new.made_phase = i, i, phase
        if op.name.startswith("fabric."):
            waiting |= dict.fromkeys(fresh, used)
        elif fresh:  # a view doesn't wait for a collective, what computes does
            used = used + [s for read in used for s in waiting.pop(read, ())]
        for read in used:
            read.last = i
            read.used_phase = max(read.used_phase, phase)
        made.append(tuple(fresh))
    for value in block.outputs:
        storage[value.id].held = True
    at_start = tuple(dict.fromkeys(inputs))
    return _Segment(
        block=block,
        storage=storage,
        at_start=at_start,
        made=tuple(made),
        freed=_freed(len(block.ops), (*at_start, *(s for new in made for s in new))),
    )


def _results(
    op: Op, used: list[_Storage], callees: Mapping[str, _Callee], is_view: IsView
) -> list[_Storage]:
    if op.name == CALL:
        return _call_results(callees[op.block], used)
    if used and is_view(op):
        return [used[0]] * len(op.outputs)
    module = _LAYER_NUMBER.sub("*", op.site.module)
    return [_Storage(size_bytes=value.type.size_bytes, module=module) for value in op.outputs]


def _call_results(callee: _Callee, used: list[_Storage]) -> list[_Storage]:
    results: list[_Storage] = []
    for i, source in enumerate(callee.input_of):
        if source is not None:
            results.append(used[source])
        elif callee.output_of[i] < i:
            results.append(results[callee.output_of[i]])
        else:
            results.append(_Storage(size_bytes=callee.output_bytes[i], module=callee.modules[i]))
    return results


def _freed(num_ops: int, storages: Sequence[_Storage]) -> tuple[tuple[_Storage, ...], ...]:
    freed: list[list[_Storage]] = [[] for _ in range(num_ops)]
    for storage in storages:
        if not storage.held and num_ops:
            # What no op reads goes when the block ends.
            freed[storage.last].append(storage)
    return tuple(map(tuple, freed))


def _timeline(segment: _Segment, callees: Mapping[str, _Callee]) -> list[int]:
    live = sum(storage.size_bytes for storage in segment.at_start)
    timeline: list[int] = []
    for i, op in enumerate(segment.block.ops):
        freed = sum(storage.size_bytes for storage in segment.freed[i])
        made = sum(storage.size_bytes for storage in segment.made[i])
        if op.name == CALL:
            handed, inner = _call(segment, i, callees)
            rest = live - sum(storage.size_bytes for storage in inner.at_start)
            times = callees[op.block].timelines
            if handed not in times:
                times[handed] = _timeline(inner, {})
            timeline += [rest + size for size in times[handed]]
        else:
            timeline.append(live + made)
        live += made - freed
    return timeline


def _call(segment: _Segment, at: int, callees: Mapping[str, _Callee]) -> tuple[Handover, _Segment]:
    """How call `at` hands its inputs over, and its block walked that way."""
    op = segment.block.ops[at]
    used = [segment.storage[value.id] for value in op.inputs]
    freed = set(segment.freed[at])
    handed: Handover = tuple(
        (_first(used, storage), storage.size_bytes) if storage in freed else None
        for storage in used
    )
    callee = callees[op.block]
    if handed not in callee.segments:
        inputs: list[_Storage] = []
        for i, given in enumerate(handed):
            if given is None:
                inputs.append(_Storage(size_bytes=0, held=True))
            elif given[0] < i:
                inputs.append(inputs[given[0]])
            else:
                inputs.append(_Storage(size_bytes=given[1]))
        callee.segments[handed] = _segment(callee.block, inputs, {}, callee.is_view)
    return handed, callee.segments[handed]


def _live_at(segment: _Segment, callees: Mapping[str, _Callee], wanted: int) -> list[_Storage]:
    """The storages in use while op `wanted` (calls expanded) runs."""
    live = dict.fromkeys(segment.at_start)
    first = 0
    for i, op in enumerate(segment.block.ops):
        length = len(callees[op.block].block.ops) if op.name == CALL else 1
        if wanted < first + length:
            if op.name != CALL:
                return [*live, *segment.made[i]]
            _, inner = _call(segment, i, callees)
            inside = _live_at(inner, {}, wanted - first)
            return _joined(segment, op, live, inner, inside)
        live |= dict.fromkeys(segment.made[i])
        for storage in segment.freed[i]:
            live.pop(storage, None)
        first += length
    return list(live)


def _joined(
    segment: _Segment,
    op: Op,
    live: Mapping[_Storage, None],
    inner: _Segment,
    inside: list[_Storage],
) -> list[_Storage]:
    """What lives during a call: the caller's storages under their own names, then the callee's."""
    outer: dict[_Storage, _Storage] = {}
    for values, handed in ((inner.block.outputs, op.outputs), (inner.block.inputs, op.inputs)):
        for value, given in zip(values, handed, strict=True):
            outer[inner.storage[value.id]] = segment.storage[given.id]
    handed_over = {outer[storage] for storage in inner.at_start if storage.size_bytes}
    kept = [storage for storage in live if storage not in handed_over]
    known = set(kept)
    return kept + [s for s in (outer.get(found, found) for found in inside) if s not in known]
