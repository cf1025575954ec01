"""What a user calls: connect to chips, compile a step, call it, pull the state back."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from supernode.capture import Captured, capture, user_line
from supernode.checkpoint import (
    Checkpoint,
    Contents,
    Writer,
    check_room_for,
    checked_data,
    read,
    write,
)
from supernode.errors import CheckpointError, InputError, SupernodeError
from supernode.ir import HostType, Program, Type
from supernode.machine import Machine, load_machine
from supernode.partition import partition, partition_within
from supernode.plan import Plan
from supernode.run import STUCK_AFTER_S, LoadedStep
from supernode.run import Node as Chips
from supernode.run import connect as connect_chips
from supernode.search import default_layout, usable_chips
from supernode.simulate import Simulation, simulate
from supernode.trace import Trace


def connect(address: str = "local", *, stuck_after_s: float = STUCK_AFTER_S) -> "Node":
    """The chips at `address` as one computer: `local`, `local:4` (four of them), `cpu:2`.

    A step may take as long as it will; but where chips stand still for `stuck_after_s` seconds (a
    process stopped by a signal, or asleep while none works), it fails with `ChipFailed`.

    Raises:
        UnknownName: no such kind of chip.
        InputError: the number of chips is no number; the time is not positive.
        DoesNotFit: there is not the memory for so many chips.
        ChipFailed: a chip did not start.
    """
    return Node(connect_chips(address, stuck_after_s=stuck_after_s))


class Node:
    """Chips as one computer; use it in `with`, or close it."""

    def __init__(self, chips: Chips) -> None:
        self._chips = chips
        self._writer = Writer()

    @property
    def chips(self) -> int:
        """How many chips there are."""
        return self._chips.chips

    @property
    def pids(self) -> tuple[int, ...]:
        """The process of each chip."""
        return self._chips.pids

    def compile(
        self,
        step: Callable[..., Any],
        model: torch.nn.Module | None = None,
        optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] = (),
        *,
        layout: str | None = None,
        memory: float | None = None,
        name: str | None = None,
    ) -> "Step":
        """`step`, written for one device, as a step over all chips of this node.

        It is captured at its first call, with that call's arguments; `layout` is a line such as
        `dp=2,tp=2`, by default the batch is split. Every compiled step has its own copy of the
        state: where two share a model (training and evaluation), `train.pull()` and then
        `evaluate.push()` bring the second up to date.

        `memory` is how many bytes of its memory each chip may use. Where the layout alone needs
        more, activations are computed again, then values offloaded; a plan that needs more even so
        is refused, and a chip that used more in a step would fail.

        It computes what `step` does in plain PyTorch, within rounding. What `step` draws at random
        (dropout) is the same in every layout, from the seed that `torch.manual_seed` has set at
        the first call; the distributions are torch's, the numbers are not. Example:

            step = node.compile(train_step, model, optimizer, layout="fsdp=4")
            loss = step(tokens, targets)
        """
        return Step(self._chips, self._writer, step, model, optimizers, layout, memory, name)

    def close(self) -> None:
        """Ends the chips' processes and frees their memory; a second call does nothing.

        Raises:
            CheckpointError: the last checkpoint could not be written. All is closed.
        """
        self._chips.close()
        self._writer.close()

    def __enter__(self) -> "Node":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointError as failed:
            if error is None:
                raise
            error.add_note(str(failed))


class Step:
    """A compiled step: call it like the function it was made from.

    The state (weights, buffers, optimizer state) stays on the chips between calls; `pull()`
    brings it back into the model and the optimizer.
    """

    def __init__(
        self,
        chips: Chips,
        writer: Writer,
        step: Callable[..., Any],
        model: torch.nn.Module | None,
        optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        layout: str | None,
        memory_bytes: float | None,
        name: str | None,
    ) -> None:
        self._chips = chips
        self._writer = writer
        self._step = step
        self._model = model
        self._optimizers = optimizers
        self._layout = layout
        self._memory_bytes = memory_bytes
        self._name = name or getattr(step, "__name__", "step")
        self._captured: Captured | None = None
        self._plan: Plan | None = None
        self._loaded: LoadedStep | None = None

    def prepare(self, *args: Any, **kwargs: Any) -> "Step":
        """Captures, plans and loads the step for arguments like these, without running it.

        Raises:
            CaptureError: the step can't be captured; the error gives the line and what to do.
            LayoutError: the layout does not fit the program or the number of chips.
            UnknownOp: more than one chip, and an op has no row in the op table.
            DoesNotFit: each chip would need more than the memory it may use.
        """
        with _where_called():
            self._prepare(args, kwargs)
        return self

    def _prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._loaded is None:
            captured = capture(
                self._step, self._model, self._optimizers, args, kwargs, name=self._name
            )
            layout = self._layout
            if layout is None:
                layout = default_layout(captured.program, self._chips.chips)
            plan = self._planned(captured.program, layout)
            values = captured.inputs()
            self._loaded = self._chips.load(plan, values, self._memory_bytes)
            self._captured, self._plan = captured, plan

    def _planned(self, program: Program, layout: str) -> Plan:
        chips, most = self._chips.chips, self._memory_bytes
        if most is None:
            return partition(program, layout, chips)
        return partition_within(program, layout, most, chips, in_place=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the step on all chips; returns what the function returns, as global tensors.

        Raises:
            InputError: the arguments differ in number, shape or dtype from those it was
                captured with; nothing has run.
            CheckFailed: what the step checks about its data (`torch._check`) does not hold.
            ChipFailed: a chip died or raised; the error names the chip, the op and the module.
            CheckpointError: what `save` was writing could not be written; nothing has run.
        """
        with self._chips.turn, _where_called():
            self._writer.check()
            self._prepare(args, kwargs)
            loaded, captured = self._ready()
            results = loaded.step(captured.bind(*args, **kwargs), captured.host_values())
            captured.after_step()
        return captured.result(results)

    def traced(self, *args: Any, **kwargs: Any) -> tuple[Any, Trace]:
        """A call as above, with the Trace of when each op ran on each chip."""
        return self._traced(args, kwargs, memory=False)

    def _traced(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, memory: bool
    ) -> tuple[Any, Trace]:
        with self._chips.turn, _where_called():
            self._writer.check()
            self._prepare(args, kwargs)
            loaded, captured = self._ready()
            named = captured.bind(*args, **kwargs)
            results, trace = loaded.traced_step(named, captured.host_values(), memory=memory)
            captured.after_step()
        return captured.result(results), trace

    def traced_memory(self, *args: Any, **kwargs: Any) -> tuple[Any, Trace]:
        """A traced call whose Trace also has the memory of each chip, measured and planned.

        Both are counters, which Perfetto draws over the ops. Measuring takes time, so ops last
        longer than in `traced`. Example:

            loss, trace = step.traced_memory(tokens, targets)
            print(trace.peak(MEMORY, 0), trace.peak(PLANNED_MEMORY, 0))
        """
        return self._traced(args, kwargs, memory=True)

    def pull(self) -> None:
        """Writes the state on the chips back into the model and the optimizers, in place."""
        if self._loaded is not None:
            loaded, captured = self._ready()
            captured.write_back(_tensors(loaded.pull()))

    def push(self) -> None:
        """Writes the model and the optimizers, as they are now, to the chips."""
        if self._loaded is not None:
            loaded, captured = self._ready()
            loaded.push(captured.present())

    def state_dict(self) -> dict[str, Tensor]:
        """The state on the chips as global tensors, by name; the model is left as it is."""
        loaded, _ = self._ready()
        return _tensors(loaded.pull())

    def save(self, folder: str | Path, done: int, *, data: object = None, keep: int = 2) -> None:
        """Saves the state in `folder`, as `step-00000100` after `done` = 100 steps.

        Weights, buffers, optimizer and schedulers, seed and count of steps, and `data`: anything
        JSON can hold, such as where the data stands. They are copied now and written while the
        next steps run; a checkpoint appears when it is whole and on disk, and the oldest but
        `keep` go. What goes wrong while writing is raised by the next call, save or close.

        Raises:
            CheckpointError: the one before could not be written, the folder can't be, or it holds
                this step or later ones.
            InputError: a number or `data` is not what it must be, or the step has not been
                captured.
        """
        with _where_called():
            checked = checked_data(done, keep, data)
            self._writer.wait()
            check_room_for(Path(folder), done)
            with self._chips.turn:
                contents = self._contents(checked)
            self._writer.start(lambda: write(Path(folder), done, contents, keep))

    def load(self, folder: str | Path) -> Checkpoint:
        """Takes the state of the newest checkpoint in `folder`, or of the one `folder` is.

        It may have been saved in any layout, on any number of chips. The step must have been
        captured, with the same model and optimizers: `step.prepare(*args)` first. The model
        itself stays as it is until `pull`; optimizers and schedulers get their numbers now.

        Raises:
            CheckpointError: there is none, it is damaged or of another model; nothing has changed.
        """
        with self._chips.turn, _where_called():
            loaded, captured = self._ready()
            self._writer.wait()
            checkpoint, contents = read(Path(folder), _kept(captured.program))
            captured.restore_host_state(contents.host)
            loaded.push({**contents.weights, **contents.state, **contents.numbers})
        return checkpoint

    def _contents(self, data: object) -> Contents:
        loaded, captured = self._ready()
        state = loaded.pull(_kept(captured.program))
        tensors, weights = _tensors(state), captured.weights()
        return Contents(
            weights={name: tensors[name] for name in tensors if name in weights},
            state={name: tensors[name] for name in tensors if name not in weights},
            numbers={n: value for n, value in state.items() if not isinstance(value, Tensor)},
            host=captured.host_state(),
            data=data,
            about={"step": self._name, "chips": self._chips.chips, "layout": self.plan.layout},
        )

    @property
    def program(self) -> Program:
        """What was captured."""
        return self._ready()[1].program

    @property
    def plan(self) -> Plan:
        """Who computes what: `print(step.plan)`, `step.plan.explain("lm_head.weight")`."""
        self._ready()
        assert self._plan is not None
        return self._plan

    def simulate(
        self,
        machine: str | Machine,
        *,
        layout: str | None = None,
        chips: int | None = None,
        tokens: int | None = None,
    ) -> Simulation:
        """This step on a machine you may not have; see `simulate_program`."""
        if tokens is None:
            tokens = _tokens(self.program)
        return simulate_program(self.program, machine, layout=layout, chips=chips, tokens=tokens)

    def _ready(self) -> tuple[LoadedStep, Captured]:
        if self._loaded is None or self._captured is None:
            raise InputError(
                "the step has not been captured yet",
                fix="call it once, or call step.prepare(*args)",
            )
        return self._loaded, self._captured


@contextmanager
def _where_called() -> Generator[None]:
    """Says in an error that has no line of the model which line called us."""
    try:
        yield
    except SupernodeError as error:
        error.complete(where=user_line())
        raise


def simulate_program(
    program: Program,
    machine: str | Machine,
    *,
    layout: str | None = None,
    chips: int | None = None,
    tokens: int | None = None,
) -> Simulation:
    """One step of `program` on `machine` (a name of the catalogue, a .toml file or a Machine).

    `chips` is how many of its chips are used: by default all, or with no layout as many as have
    a default one. `tokens` is the number of tokens a step handles, for rates per token.

    Raises:
        UnknownName, MachineFileError: no such machine, or its file is malformed.
        LayoutError: the layout does not fit the program or the machine.
        UnknownOp: an op has no row in the op table.
    """
    target = load_machine(machine) if isinstance(machine, str) else machine
    if chips is not None:
        target.level_spanning(chips)
    if layout is None:
        count = chips or usable_chips(program, target.chips)
        capacity_bytes = target.chip.memory.capacity_bytes.value
        layout = default_layout(program, count, capacity_bytes)
    plan = partition(program, layout, chips)
    return simulate(plan, target, tokens=tokens)


def _tensors(values: dict[str, Tensor | float]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _kept(program: Program) -> dict[str, Type]:
    """What a checkpoint holds of a program's state: constants belong to the program."""
    return {
        port.name: value.type
        for port, value in zip(program.inputs, program.main.inputs, strict=True)
        if port.role in ("param", "buffer", "state")
    }


def _tokens(program: Program) -> int | None:
    """The elements of the first argument, where it holds integers: a batch of tokens."""
    for port, value in zip(program.inputs, program.main.inputs, strict=True):
        if port.role == "arg" and not isinstance(value.type, HostType):
            return value.type.numel if "int" in value.type.dtype else None
    return None
