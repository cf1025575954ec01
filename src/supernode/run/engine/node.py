"""Node: the chips of this host, as one."""

import atexit
import os
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from time import monotonic
from types import TracebackType
from typing import TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from supernode.errors import ChipFailed, InputError, SupernodeError
from supernode.kernels import is_making, origins
from supernode.partition import check_fits
from supernode.plan import AT_PEERS, Plan, Progress, Task
from supernode.run.chips import ChipKind, chip_kind
from supernode.run.engine.doorbell import MOST_CHIPS, Command, Doorbell
from supernode.run.engine.liveness import STUCK_AFTER_S
from supernode.run.engine.loaded import LoadedStep
from supernode.run.engine.messages import Failed, Load, Loaded, Message, Recover
from supernode.run.engine.process import GRACE_S, WorkerProcess
from supernode.run.engine.watch import Watch
from supernode.run.engine.window import Arenas, Spot, Window, spot_of
from supernode.run.fabric import ArenaSet, HostRooms, SharedMemoryFabric

_LOOK_UP_S = 0.1
_LEAVE_S = 0.8

_WAITED_FOR = {
    Command.LOAD: "it to load a plan",
    Command.STEP: "its step",
    Command.TRACED_STEP: "its step",
    Command.TRACED_MEMORY: "its step",
    Command.SAVE: "its state",
    Command.RESTORE: "it to take its state",
}

T = TypeVar("T")
_open: "WeakSet[Node]" = WeakSet()


def connect(address: str = "local", *, stuck_after_s: float = STUCK_AFTER_S) -> "Node":
    """The chips behind `address` as one node; close it, or use it in `with`.

    `local` is every chip of this host, of the best kind it has; `local:4` is four of them (on
    processors they share the cores). `cpu` or `cuda` in place of `local` choose the kind.

    A step may take as long as it will. But where a chip stands still for `stuck_after_s` seconds
    (its process stopped by a signal, or asleep while no chip works), the step fails with
    `ChipFailed`; `math.inf` waits for ever, for a debugger.

    Raises:
        UnknownName: no such kind of chip.
        InputError: the number is no number, or too large; the time is not positive.
        ChipFailed: a worker did not start.
    """
    if is_making():
        raise InputError(
            "the process of a chip runs this script for its kernels, and must not connect",
            asked=address,
            fix='put what connects and trains under `if __name__ == "__main__":`',
        )
    name, _, number = address.partition(":")
    kind = chip_kind(name)
    if number and not (number.isdecimal() and int(number)):
        raise InputError(
            f"{number!r} is not a number of chips", asked=address, fix="write it like local:4"
        )
    if not stuck_after_s > 0:
        raise InputError(
            f"stuck_after_s = {stuck_after_s}: must be positive",
            asked=address,
            fix="give seconds, or math.inf to wait for ever",
        )
    return Node(kind, int(number) if number else kind.count(), stuck_after_s)


class Node:
    """Worker processes, one a chip, and the memory they share."""

    def __init__(self, kind: ChipKind, chips: int, stuck_after_s: float = STUCK_AFTER_S) -> None:
        kind.check(chips)
        if chips > MOST_CHIPS:
            raise InputError(f"{chips} chips: one host can have {MOST_CHIPS}")
        self.kind = kind
        self.chips = chips
        self.turn = RLock()
        """Whoever uses the chips holds it: they do one thing at a time, threads wait."""
        self._failure: SupernodeError | None = None
        self._closed = False
        self._owner = os.getpid()
        self._watch: Watch | None = None
        self._workers: list[WorkerProcess] = []
        self._loaded: list[LoadedStep] = []
        self._loads = 0
        self._numbers = Arenas(chips)
        self._tasks = tuple(Task(id=rank, stream=rank) for rank in range(chips))
        # The node is one rank more, behind the chips: it has an arena and rings doorbells.
        self._arenas = ArenaSet.create(chips + 1)
        self._rooms = HostRooms(chips)
        try:
            self._fabric = SharedMemoryFabric.attach(self._arenas.fds, chips, deadline_s=_LOOK_UP_S)
            self._windows: dict[int, Window] = {}
            self._bell = Doorbell(self._fabric, chips)
            for rank in range(chips):
                room = self._rooms.fds[rank]
                self._workers.append(WorkerProcess(rank, chips, kind, self._arenas.fds, room))
            self._watch = Watch(self._workers, self._arenas, stuck_after_s)
            with self._watch.waiting("it to start"):
                for worker in self._workers:
                    worker.receive()
        except BaseException:
            self.close()
            raise
        _open.add(self)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers, by rank."""
        return tuple(worker.pid for worker in self._workers)

    def load(
        self,
        plan: Plan,
        values: Mapping[str, Tensor | float],
        memory_bytes: float | None = None,
    ) -> LoadedStep:
        """Ships `plan` to every chip, with its pieces of `values` (parameters, buffers, state).

        Each chip may use `memory_bytes` of its memory, where that is given. A step in which one
        used more fails.

        Raises:
            DoesNotFit: the plan needs more than that.
            InputError: the plan is for another number of chips, or `values` do not fit it.
            ChipFailed: a chip could not make itself ready.
        """
        self.check_usable()
        if plan.mesh.size != self.chips:
            wrong = f"the plan is for {plan.mesh.size} chips, the node has {self.chips}"
            raise InputError(wrong, asked=str(plan.mesh), fix=f"connect('local:{plan.mesh.size}')")
        lent = any(layout is not None and layout.place == AT_PEERS for layout in plan.inputs)
        if lent and not self.kind.state_in_arena:
            wrong = f"{self.kind.name} chips do not keep each other's state"
            raise InputError(wrong, asked=f"layout {plan.layout}", fix="leave out @peers")
        if memory_bytes is not None:
            check_fits(plan, memory_bytes)
        with self.turn:
            loaded = LoadedStep(self, plan, values, memory_bytes)
            self._loaded.append(loaded)
        return loaded

    def ship(
        self,
        plan: Plan,
        arguments: Mapping[int, Tensor],
        numbers: Tensor,
        memory_bytes: float | None,
    ) -> tuple[int, list[Loaded]]:
        """Makes every worker load `plan`; gives its number and where each has its pieces."""
        load = Load(
            number=self._loads,
            plan=plan,
            kernels=origins(plan.program),
            arguments={i: spot_of(tensor, self._numbers.node) for i, tensor in arguments.items()},
            numbers=spot_of(numbers, self._numbers.node),
            memory_bytes=memory_bytes,
        )
        self.check_usable()
        self._loads += 1
        answers = self._together(Command.LOAD, lambda: self._shipped(load))
        return load.number, [answer for answer in answers if isinstance(answer, Loaded)]

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor in the node's own arena, which every worker can read."""
        return self._fabric.empty(shape, dtype)

    def tensor(self, spot: Spot) -> Tensor:
        """The tensor that lies at `spot`, in whichever arena of this host."""
        if spot.arena not in self._windows:
            fds = (*self._arenas.fds[1:], *self._rooms.fds)
            self._windows[spot.arena] = Window(fds[spot.arena])
        return self._windows[spot.arena].tensor(spot)

    def command(self, command: Command, plan: int, epoch: int) -> None:
        """Has every chip obey, and returns when all have.

        Raises:
            ChipFailed: a chip failed; the state is that of the last whole step.
        """
        self.check_usable()
        self._together(command, lambda: self._obeyed(command, plan, epoch))

    def ask(self, command: Command, plan: int, epoch: int) -> list[Message]:
        """A command that every chip answers over its pipe: the answers, by rank."""
        self.check_usable()
        return self._together(command, lambda: self._answers(command, plan, epoch))

    def _shipped(self, load: Load) -> list[Message]:
        for worker in self._workers:
            worker.send(load)
        return self._answers(Command.LOAD, load.number, 0)

    def _answers(self, command: Command, plan: int, epoch: int) -> list[Message]:
        self._bell.ring(command, plan, epoch)
        # Read before they are waited for: a long answer does not fit into the pipe.
        answers = [worker.receive() for worker in self._workers]
        self._await_all()
        return answers

    def _obeyed(self, command: Command, plan: int, epoch: int) -> None:
        self._bell.ring(command, plan, epoch)
        self._await_all()

    def _await_all(self) -> None:
        progress = Progress(self._tasks)
        progress.start()
        for rank in range(self.chips):
            self._bell.wait_for(rank)
            progress.finish(rank)
        assert progress.done

    def _together(self, command: Command, act: Callable[[], T]) -> T:
        """What stops one chip, or this process, stops them all."""
        assert self._watch is not None
        with self._watch.waiting(_WAITED_FOR[command]):
            try:
                try:
                    return act()
                except SupernodeError as error:
                    # Without the frames below, which would keep the arenas mapped.
                    first = error.with_traceback(None)
                stopped = self._stopped(first)
            except BaseException:
                self.fail(ChipFailed("the last step was interrupted"))
                raise
        raise stopped

    def check_usable(self) -> None:
        """Raises what keeps this node from being used."""
        if self._closed:
            raise InputError("the node is closed", fix="connect anew")
        if os.getpid() != self._owner:
            raise InputError("the node belongs to another process", fix="connect in this one")
        if self._failure is None and self._arenas.aborted() is not None:
            self._stopped(ChipFailed(f"the run was stopped: {self._arenas.aborted()}"))
        if self._failure is not None:
            raise ChipFailed(
                f"the node has lost a chip: {self._failure.wrong}",
                asked=self._failure.asked,
                op=self._failure.op,
                where=self._failure.where,
                fix="pull() still gives the state of the last whole step; then connect anew",
            )

    def check_open(self) -> None:
        """Raises if the node was closed; a node that lost a chip still has its memory."""
        if self._closed:
            raise InputError("the node is closed", fix="pull before closing, or connect anew")

    @property
    def alive(self) -> bool:
        """Whether every chip can still be asked."""
        return not self._closed and self._failure is None

    def fail(self, error: SupernodeError) -> SupernodeError:
        """Ends every worker because of `error`, which is what later calls will report."""
        if self._failure is None:
            # A copy: one that was raised holds on to every frame it passed.
            self._failure = ChipFailed(
                error.wrong, asked=error.asked, op=error.op, where=error.where, fix=error.fix
            )
        self._end_workers()
        return error

    def close(self) -> None:
        """Ends the workers and frees the memory; a second call does nothing."""
        if self._closed or os.getpid() != self._owner:
            return  # a forked child has no say
        self._closed = True
        _open.discard(self)
        self._end_workers()
        for loaded in self._loaded:
            loaded.release()
        # Whoever still holds the node holds no memory.
        self._arenas.close()
        self._rooms.close()
        self._loaded, self._windows, self._watch = [], {}, None
        for name in ("_bell", "_fabric", "_arenas", "_rooms"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> "Node":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end_workers(self) -> None:
        if self._watch is not None:
            self._watch.close()
        for worker in self._workers:
            worker.hang_up()
        end_s = monotonic() + GRACE_S
        for worker in self._workers:
            worker.close(max(0.0, end_s - monotonic()))

    def _stopped(self, first: SupernodeError) -> SupernodeError:
        """The error of the chip that failed, after a run was stopped; `first` if none owns up.

        When every chip has left its command and lives, the node can go on as before it.
        """
        outcomes = self._outcomes()
        own = [(rank, each.error) for rank, each in enumerate(outcomes) if each and each.own]
        left = [(rank, each.error) for rank, each in enumerate(outcomes) if each and not each.own]
        error = _on_chip(*own[0], left) if own else _on_none(first, left)
        if None in outcomes or not self.kind.state_in_arena:
            return self.fail(error)
        self._arenas.reset()
        # Only now: what the watch tells of a death from here on stands.
        if self._any_dead():
            return self.fail(error)
        self._bell.reset()
        try:
            for worker in self._workers:
                worker.send(Recover())
        except ChipFailed as death:
            return self.fail(death)
        return error

    def _outcomes(self) -> list[Failed | None]:
        """How the command ended on each chip; None where one has died and this one has not left.

        Else a chip may finish its op, however long it takes: the watch ends one that stands still.
        """
        end_s = monotonic() + _LEAVE_S
        outcomes = [w.outcome(max(0.0, end_s - monotonic())) for w in self._workers]
        while None in outcomes and self.kind.state_in_arena and not self._any_dead():
            pairs = zip(outcomes, self._workers, strict=True)
            outcomes = [outcome or worker.outcome(_LOOK_UP_S) for outcome, worker in pairs]
        return outcomes

    def _any_dead(self) -> bool:
        return any(worker.is_dead for worker in self._workers)


def _on_chip(
    rank: int, error: SupernodeError, left: Sequence[tuple[int, SupernodeError]]
) -> ChipFailed:
    """`error` of chip `rank`; one that died can't say where, but those that waited for it can."""
    where = f"chip {rank}" + (f", {error.where}" if error.where else "")
    waited = next(((other, each) for other, each in left if each.op or each.asked), None)
    told = error
    if not error.where and waited is not None:
        other, told = waited
        where = f"{where}; chip {other} was at {told.where or told.asked}"
    return ChipFailed(error.wrong, asked=told.asked, op=told.op, where=where, fix=error.fix)


def _on_none(first: SupernodeError, left: Sequence[tuple[int, SupernodeError]]) -> ChipFailed:
    """No chip is to blame; where each was when it left."""
    at = "; ".join(f"chip {rank} was at {e.where or e.asked}" for rank, e in left if e.asked)
    return ChipFailed(first.wrong, where=at)


@atexit.register
def _close_all() -> None:
    for node in list(_open):
        node.close()
