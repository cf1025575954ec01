"""supernode from scratch: capture, shard, run and simulate a step, in one file.

This is the whole idea of supernode on three ops and one mesh axis, without an import of it. Each
chapter stands for a room of `src/supernode`, named in its heading. Read it top to bottom, then run
it: `python docs/explain/from_scratch.py`. What the real rooms add is said where a chapter ends.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Barrier, Thread
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# --- 1. A program (ir/) --------------------------------------------------------------------------
#
# A step is a list of ops. Each reads values and makes one; a value is known by its number. That is
# all a compiler needs: what is computed, not how Python came to compute it.


@dataclass(frozen=True)
class Op:
    name: str
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Program:
    """Values 0, 1, ... are the inputs; `shapes[v]` is the shape of value `v`."""

    num_inputs: int
    ops: tuple[Op, ...]
    shapes: dict[int, tuple[int, ...]]
    result: int


# --- 2. Capture (capture/) -----------------------------------------------------------------------
#
# torch sends every op through a dispatcher, and a dispatch mode may listen there. We run the user's
# function once on tensors of the device "meta", which have a shape and no data, and write down what
# comes by. Whatever Python did (loops, classes, conditions on shapes) has happened and is gone.


class Recorder(TorchDispatchMode):
    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.numbers = {id(tensor): number for number, tensor in enumerate(inputs)}
        self.kept = list(inputs)  # so that no id is used twice
        self.ops: list[Op] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in FORMULAS:
            raise NotImplementedError(f"no formula for {name}")
        self.numbers[id(out)] = len(self.kept)
        self.kept.append(out)
        read = tuple(self.numbers[id(arg)] for arg in args)
        self.ops.append(Op(name, read, self.numbers[id(out)]))
        return out


def capture(step: Callable[..., Tensor], shapes: list[tuple[int, ...]]) -> Program:
    inputs = tuple(torch.empty(shape, device="meta") for shape in shapes)
    with Recorder(inputs) as recorder:
        out = step(*inputs)
    return Program(
        num_inputs=len(inputs),
        ops=tuple(recorder.ops),
        shapes={number: tuple(tensor.shape) for number, tensor in enumerate(recorder.kept)},
        result=recorder.numbers[id(out)],
    )


# The real one also records backward passes, optimizers and random numbers, undoes mutation, and
# refuses what it can't record exactly.

# --- 3. Formulas (ops/) --------------------------------------------------------------------------
#
# One line says what the dims of an op are. From it follows how the op may be split over chips: by a
# letter of the output, and each chip makes a piece of it; or by a letter that the output lacks, and
# each chip makes a partial sum of all of it.

FORMULAS = {
    "mm": "m k, k n -> m n",
    "add": "m n, n -> m n",  # a matrix and a bias
    "relu": "m n -> m n",
}


def formula(op: Op) -> tuple[list[list[str]], list[str]]:
    """The letters of each input, and of the output."""
    left, right = FORMULAS[op.name].split("->")
    return [part.split() for part in left.split(",")], right.split()


def flops(op: Op, shapes: dict[int, tuple[int, ...]]) -> float:
    """The work of an op; a multiply-add counts as 2."""
    sizes: dict[str, int] = {}
    for value, letters in zip(op.inputs, formula(op)[0], strict=True):
        sizes |= dict(zip(letters, shapes[value], strict=True))
    return float((2 if op.name == "mm" else 1) * torch.Size(sizes.values()).numel())


# --- 4. Layouts and classes (partition/) ---------------------------------------------------------
#
# A value lies on the chips in one of three ways: WHOLE, the same on each; cut along a dim (its
# number); or as a PARTIAL sum, where the true value is the sum of what the chips hold.

WHOLE, PARTIAL = "whole", "partial"
Layout = str | int
Place = tuple[int, int]  # value, dim


class Classes:
    """Which dims are the same thing: two that share a letter in some op. (A union-find.)"""

    def __init__(self, program: Program) -> None:
        self.parent: dict[Place, Place] = {}
        for op in program.ops:
            inputs, output = formula(op)
            first: dict[str, Place] = {}
            for value, letters in zip((*op.inputs, op.output), [*inputs, output], strict=True):
                for dim, letter in enumerate(letters):
                    place = (value, dim)
                    self.parent[self.of(place)] = self.of(first.setdefault(letter, place))

    def of(self, place: Place) -> Place:
        while (parent := self.parent.get(place, place)) != place:
            place = parent
        return place


# So a parallel scheme is one choice: which class of dims the chips share out. Cut the class of x's
# rows and it is data parallel; cut the class of w1's columns and it is tensor parallel. The code
# below does not know these names.

# --- 5. The local program (partition/, plan/) ----------------------------------------------------
#
# All chips run one program on their pieces. We walk the ops in order; each op is split by the
# letter of the chosen class, if it has one. Operands that lie otherwise are moved first, and every
# move is an op too: `cut` needs no talk, `all_gather` and `all_reduce` do.


@dataclass(frozen=True)
class Plan:
    """`layouts[v]` says how input `v` lies; `shapes` are those of the pieces."""

    chips: int
    local: Program
    layouts: tuple[Layout, ...]


def partition(program: Program, split: Place | None, chips: int) -> Plan:
    classes = Classes(program)
    chosen = classes.of(split) if split else None
    layouts: dict[int, Layout] = {}
    for value in range(program.num_inputs):
        dims = range(len(program.shapes[value]))
        layouts[value] = next((d for d in dims if classes.of((value, d)) == chosen), WHOLE)
    inputs = tuple(layouts[value] for value in range(program.num_inputs))
    shapes = {v: _piece(program.shapes[v], layout, chips) for v, layout in layouts.items()}
    held = {value: value for value in layouts}  # a value of the program -> a local one
    ops: list[Op] = []

    def emit(name: str, read: tuple[int, ...], shape: tuple[int, ...]) -> int:
        shapes[len(shapes)] = shape
        ops.append(Op(name, read, len(shapes) - 1))
        return len(shapes) - 1

    def move(value: int, goal: Layout) -> int:
        now = layouts[value]
        if now == goal:
            return held[value]
        if now == WHOLE:
            name, after = f"cut {goal}", goal
        else:
            name, after = ("all_reduce" if now == PARTIAL else f"all_gather {now}"), WHOLE
        held[value] = emit(name, (held[value],), _piece(program.shapes[value], after, chips))
        layouts[value] = after
        return move(value, goal)

    for op in program.ops:
        letters, output = formula(op)
        pairs = [*zip(op.inputs, letters, strict=True), (op.output, output)]
        split_by = next(
            (
                letter
                for value, dims in pairs
                for dim, letter in enumerate(dims)
                if classes.of((value, dim)) == chosen
            ),
            None,
        )
        goals = [dims.index(split_by) if split_by in dims else WHOLE for _, dims in pairs]
        read = tuple(move(value, goal) for value, goal in zip(op.inputs, goals, strict=False))
        made = PARTIAL if split_by and split_by not in output else goals[-1]
        layouts[op.output] = made
        held[op.output] = emit(op.name, read, _piece(program.shapes[op.output], made, chips))

    result = move(program.result, WHOLE)
    local = Program(program.num_inputs, tuple(ops), shapes, result)
    return Plan(chips, local, inputs)


def _piece(shape: tuple[int, ...], layout: Layout, chips: int) -> tuple[int, ...]:
    if isinstance(layout, str):
        return shape
    assert shape[layout] % chips == 0, f"{chips} chips do not divide dim {layout} of {shape}"
    return (*shape[:layout], shape[layout] // chips, *shape[layout + 1 :])


# The real one has any number of axes, many classes an axis, weighs bytes where the choice is open,
# keeps state in parts, carries partial sums past ops that are linear in them, and merges messages.

# --- 6. Run (kernels/, run/) ---------------------------------------------------------------------
#
# A chip is a thread with its pieces. The fabric between them is a list with a slot for each chip
# and a barrier: put, wait, read, wait. Sums go in the order of the ranks, so each chip gets the
# same bits, every time.


class Fabric:
    def __init__(self, chips: int) -> None:
        self.slots: list[Tensor] = [torch.empty(0)] * chips
        self.barrier = Barrier(chips, timeout=60.0)  # seconds: a chip that failed never comes

    def exchange(self, rank: int, piece: Tensor) -> list[Tensor]:
        self.slots[rank] = piece
        self.barrier.wait()
        pieces = list(self.slots)
        self.barrier.wait()
        return pieces


KERNELS: dict[str, Callable[..., Tensor]] = {"mm": torch.mm, "add": torch.add, "relu": torch.relu}


def compute(op: Op, read: list[Tensor], rank: int, chips: int, fabric: Fabric) -> Tensor:
    name, _, dim = op.name.partition(" ")
    if name == "cut":
        return read[0].chunk(chips, int(dim))[rank]
    if name == "all_gather":
        return torch.cat(fabric.exchange(rank, read[0]), int(dim))
    if name == "all_reduce":
        return sum(fabric.exchange(rank, read[0]), start=torch.zeros(()))
    return KERNELS[name](*read)


def run(plan: Plan, inputs: list[Tensor]) -> Tensor:
    fabric = Fabric(plan.chips)
    results: dict[int, Tensor] = {}

    def chip(rank: int) -> None:
        values: dict[int, Tensor] = {}
        for number, (tensor, layout) in enumerate(zip(inputs, plan.layouts, strict=True)):
            cut = isinstance(layout, int)
            values[number] = tensor.chunk(plan.chips, layout)[rank] if cut else tensor
        for op in plan.local.ops:
            read = [values[value] for value in op.inputs]
            values[op.output] = compute(op, read, rank, plan.chips, fabric)
        results[rank] = values[plan.local.result]

    threads = [Thread(target=chip, args=(rank,)) for rank in range(plan.chips)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results[0]


# The real one has a process for each chip, shared memory for the slots, C loops for the sums,
# straight-line code in place of the loop over ops, and a state that survives a lost process.

# --- 7. Simulate (machine/, simulate/) -----------------------------------------------------------
#
# The same plan against a clock. An op takes the longer of its arithmetic and its memory traffic (a
# roofline); a message takes a latency and its bytes over the link. A chip computes on one stream
# and talks on another; an op starts when its stream is free and what it reads is there.


@dataclass(frozen=True)
class Machine:
    """FLOP/s and bytes/s of one chip, bytes/s of its link in one direction, seconds a message."""

    flops_per_s: float
    memory_bytes_per_s: float
    link_bytes_per_s: float
    latency_s: float


def op_time_s(op: Op, plan: Plan, machine: Machine) -> float:
    shapes, chips = plan.local.shapes, plan.chips
    read = sum(4 * torch.Size(shapes[value]).numel() for value in op.inputs)
    written = 4 * torch.Size(shapes[op.output]).numel()
    if is_talk(op):
        rounds = 2 if op.name == "all_reduce" else 1  # reduce-scatter, then all-gather
        sent = rounds * written * (chips - 1) / chips
        return machine.latency_s + sent / machine.link_bytes_per_s
    work = 0.0 if op.name.startswith("cut") else flops(op, shapes)
    return max(work / machine.flops_per_s, (read + written) / machine.memory_bytes_per_s)


def is_talk(op: Op) -> bool:
    return op.name.startswith("all_")


def simulate(plan: Plan, machine: Machine) -> Iterator[tuple[str, float, float]]:
    """When each op starts and ends on a chip; all chips do the same, so one stands for all."""
    free_s = {"compute": 0.0, "talk": 0.0}
    ready_s = dict.fromkeys(range(plan.local.num_inputs), 0.0)
    for op in plan.local.ops:
        stream = "talk" if is_talk(op) else "compute"
        start_s = max(free_s[stream], *(ready_s[value] for value in op.inputs))
        end_s = start_s + op_time_s(op, plan, machine)
        free_s[stream] = ready_s[op.output] = end_s
        yield op.name, start_s, end_s


# The real one has machines with levels and sources for their numbers, an event queue that is driven
# by the state machine that `run` uses too, early gathers, memory, and power.

# --- 8. All together -----------------------------------------------------------------------------


def step(x: Tensor, w1: Tensor, bias: Tensor, w2: Tensor) -> Tensor:
    return torch.relu(x @ w1 + bias) @ w2


SHAPES = [(64, 256), (256, 1024), (1024,), (1024, 256)]
CHOICES: dict[str, Place | None] = {"rows of x": (0, 0), "columns of w1": (1, 1)}
IMAGINED = Machine(flops_per_s=1e12, memory_bytes_per_s=1e11, link_bytes_per_s=1e10, latency_s=1e-6)


def main() -> None:
    program = capture(step, SHAPES)
    print("captured:", " ".join(op.name for op in program.ops))
    inputs = [
        torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        for seed, shape in enumerate(SHAPES)
    ]
    expected = step(*inputs)
    one_s = list(simulate(partition(program, None, 1), IMAGINED))[-1][2]
    print(f"one chip: {one_s * 1e6:.1f} us on the imagined machine")
    for name, split in CHOICES.items():
        plan = partition(program, split, chips=4)
        torch.testing.assert_close(run(plan, inputs), expected, rtol=1e-4, atol=1e-3)
        spans = list(simulate(plan, IMAGINED))
        print(f"\n4 chips share out the {name}: equal to one chip, {spans[-1][2] * 1e6:.1f} us")
        for op, (op_name, start_s, end_s) in zip(plan.local.ops, spans, strict=True):
            piece = "x".join(map(str, plan.local.shapes[op.output]))
            print(f"  {start_s * 1e6:6.1f} to {end_s * 1e6:6.1f} us  {op_name:12} {piece}")


if __name__ == "__main__":
    main()
