"""How much memory one chip needs for a step, by liveness.

A value takes memory from the op that makes it until its last use. A view takes none and keeps its
base alive. Two executors are known. A trainer, as simulated, updates state in place: an updated
parameter gives its memory back after its last use, and its next value takes as much from when it
is made. Our own (`run`) keeps the old epoch of the state beside the next one. What lives in
another place takes none; what is fetched does, from the start of its transfer to its last use.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from supernode.ir import RECEIVE, HostType, Port, Program, Value, elsewhere
from supernode.ir.types import DTYPE_BYTES
from supernode.ops import is_view
from supernode.plan.away import away_bytes, run_away_bytes
from supernode.plan.inplace import destinations, rewrites
from supernode.plan.storage import (
    WORKSPACE,
    Callee,
    Callees,
    Executor,
    IsView,
    Segment,
    Storage,
    callees_of,
    live_at,
    module_of,
    segment,
    timeline,
)
from supernode.units import format_bytes

STATE = "optimizer state"
PARTS = ("parameters", STATE, "gradients", "activations", "temporaries", "inputs")
"""What memory is for. Activations are made in the forward and used in the backward phase,
gradients made in the backward phase and used by the optimizer; temporaries are all the rest."""

NEXT, RESULTS, LETTERS = "next epoch", "results", "letters"
RUN_PARTS = (*PARTS, WORKSPACE, NEXT, RESULTS, LETTERS)
"""What there is besides where `run` does it: what a kernel takes while it runs; the state as the
step leaves it, beside the state as it found it; what the step returns; and what the other stages of
a pipeline send in a step."""

LENT = "lent to a peer"
"""What a chip keeps for another one, where a layout asks for that."""

_PART_OF_ROLE = {
    "param": "parameters",
    "buffer": "parameters",
    "state": STATE,
    "host": "inputs",
    "arg": "inputs",
    "constant": "inputs",
}
TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """The memory of one chip over a step.

    `parts` (by name, all of `PARTS` or `RUN_PARTS`) and `modules` (the largest few, layer numbers
    as `*`) say what holds `peak_bytes` at the peak. `timeline[i]` are the bytes in use while op `i`
    runs, with calls expanded. `away` are the bytes that lie in each other place (`host`, `peers`).
    """

    peak_bytes: int
    parts: Mapping[str, int] = field(hash=False)
    modules: tuple[tuple[str, int], ...]
    timeline: tuple[int, ...]
    away: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)

    def lending(self, size_bytes: int) -> "MemoryUse":
        """The same, of a chip that keeps so much for another one."""
        if not size_bytes:
            return self
        return replace(
            self,
            peak_bytes=self.peak_bytes + size_bytes,
            parts={**self.parts, LENT: size_bytes},
            timeline=tuple(size + size_bytes for size in self.timeline),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMemory:
    """The memory of a step on a chip of each kind, by its rank.

    Without a pipeline and unequal pieces all chips are of one kind, and chip 0 stands for them.
    """

    chips: Mapping[int, MemoryUse] = field(hash=False)

    @property
    def fullest(self) -> MemoryUse:
        """Of the kind of chip that needs most."""
        return max(self.chips.values(), key=lambda use: use.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """The most that any chip needs at any time."""
        return self.fullest.peak_bytes

    def __str__(self) -> str:
        names = [f"chip {rank}" for rank in self.chips] if len(self.chips) > 1 else ["each chip"]
        uses = self.chips.values()
        rows = [("at the peak", names)]
        for part in self.fullest.parts:
            held = [use.parts[part] for use in uses]
            rows += [(f"  {part}", [format_bytes(n) for n in held])] if any(held) else []
        rows.append(("in all", [format_bytes(use.peak_bytes) for use in uses]))
        width = max(len(cell) for _, cells in rows for cell in cells) + 2
        lines = [f"{name:18}" + "".join(f"{c:>{width}}" for c in cells) for name, cells in rows]
        most = ", ".join(f"{m} {format_bytes(n)}" for m, n in self.fullest.modules)
        return "\n".join([*lines, f"most in {most}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """A buffer that is taken at op `first` already, where it is made by op `last`."""

    first: int
    last: int
    size_bytes: int


def memory(
    program: Program,
    is_view: IsView = is_view,
    *,
    early: Iterable[Early] = (),
    known: dict[int, Callee] | None = None,
) -> MemoryUse:
    """What `program`, the program of one chip, needs of a trainer that updates state in place.

    `early` counts ops with calls expanded. The buffers that a collective reads stay until its
    result is first used, since it may still be running. Allocators round sizes up and leave gaps,
    and some kernels need workspace: neither is counted. Stages share blocks: what was found of one
    is kept in `known` for the next.
    """
    walked = walk(program, is_view, known=known)
    return replace(_use(*walked, PARTS, early), away=away_bytes(program))


def walk(
    program: Program, is_view: IsView = is_view, *, known: dict[int, Callee] | None = None
) -> tuple[Segment, Callees]:
    """The storages of `program` with a trainer that updates state in place, and of its calls."""
    executor = Executor(is_view=is_view)
    callees = callees_of(program, executor, known)
    updated = {source for source in program.updates if source is not None}
    inputs = _inputs(program, updated)
    main = segment(program.main, inputs, callees, executor, {})
    for value, source in zip(program.main.outputs, program.updates, strict=True):
        if source is not None:
            main.storage[value.id].fixed_part = inputs[source].fixed_part
    return main, callees


def run_memory(program: Program) -> MemoryUse:
    """What `program`, the program of one chip, needs where `run` executes it.

    State that a step changes is there twice, dying operands of elementwise ops are overwritten, and
    a collective is done when it returns. The workspace of kernels is that of convolutions.
    """
    return replace(_use(*run_walk(program), RUN_PARTS, ()), away=run_away_bytes(program))


def run_walk(program: Program) -> tuple[Segment, Callees]:
    """The storages of `program` where `run` executes it, and of its calls."""
    goals, away = destinations(program), elsewhere(program.main)
    executor = Executor(is_view=is_view, writes=rewrites(program, goals))
    callees = callees_of(program, executor)
    places = {
        p: Storage(
            size_bytes=0 if (out := program.main.outputs[p]).id in away else out.type.size_bytes,
            module=_port_module(program.inputs[source]),
            fixed_part=NEXT,
            held=True,
        )
        for p in goals
        if (source := program.updates[p]) is not None
    }
    sizes = {RESULTS: _results_bytes(program), LETTERS: _letters_bytes(program)}
    beside = [
        Storage(size_bytes=size, module=f"({part})", fixed_part=part, held=True)
        for part, size in sizes.items()
    ]
    inputs = _inputs(program, set())
    return segment(program.main, inputs, callees, executor, places, beside), callees


def _use(
    main: Segment, callees: Callees, parts: Sequence[str], early: Iterable[Early]
) -> MemoryUse:
    """The peak over a walked program, and what lives there."""
    found = timeline(main, callees)
    ahead = [0] * len(found)
    for buffer in early:
        for i in range(buffer.first, buffer.last):
            ahead[i] += buffer.size_bytes
    found = [size + more for size, more in zip(found, ahead, strict=True)]
    peak = max(range(len(found)), key=lambda i: found[i], default=0)
    waiting = ahead[peak] if ahead else 0
    by_part, modules = Counter(temporaries=waiting), Counter({"(sent early)": waiting})
    for storage in live_at(main, callees, peak):
        by_part[storage.part] += storage.size_bytes
        modules[storage.module or "(step)"] += storage.size_bytes
    top = sorted(((m, n) for m, n in modules.items() if n), key=lambda item: (-item[1], item[0]))
    return MemoryUse(
        peak_bytes=by_part.total(),
        parts={part: by_part[part] for part in parts},
        modules=tuple(top[:TOP]),
        timeline=tuple(found),
    )


def _inputs(program: Program, updated: set[int]) -> list[Storage]:
    away = elsewhere(program.main)
    return [
        Storage(
            size_bytes=0 if value.id in away else value.type.size_bytes,
            module=_port_module(port),
            fixed_part=_PART_OF_ROLE[port.role],
            held=i not in updated,
        )
        for i, (port, value) in enumerate(zip(program.inputs, program.main.inputs, strict=True))
    ]


def _port_module(port: Port) -> str:
    name = port.of or port.name
    return module_of(name.rpartition(".")[0] or name)


def _results_bytes(program: Program) -> int:
    pairs = zip(program.main.outputs, program.updates, strict=True)
    return sum(_word_bytes(value) for value, source in pairs if source is None)


def _letters_bytes(program: Program) -> int:
    received = (op.outputs[0] for op in program.main.ops if op.name == RECEIVE)
    return sum(map(_word_bytes, received))


def _word_bytes(value: Value) -> int:
    """The size of a value outside of the program, where a host number takes memory too."""
    type_ = value.type
    return DTYPE_BYTES[type_.dtype] if isinstance(type_, HostType) else type_.size_bytes
