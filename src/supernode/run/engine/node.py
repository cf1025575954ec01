"""Node: the chips of this host, as one."""

import atexit
from collections.abc import Mapping
from types import TracebackType
from weakref import WeakSet

import torch
from torch import Tensor

from supernode.errors import ChipFailed, InputError, SupernodeError
from supernode.plan import Plan, Progress, Task
from supernode.run.chips import ChipKind, chip_kind
from supernode.run.engine.doorbell import Command, Doorbell
from supernode.run.engine.loaded import LoadedStep
from supernode.run.engine.messages import Load, Loaded, OpTimes, Ready
from supernode.run.engine.process import WorkerProcess
from supernode.run.engine.watch import Watch
from supernode.run.engine.window import Window, spot_of
from supernode.run.fabric import ArenaSet, FabricAborted, SharedMemoryFabric

_LOOK_UP_S = 0.1
_CONFESSION_S = 0.3

_open: "WeakSet[Node]" = WeakSet()


def connect(address: str = "local") -> "Node":
    """The chips behind `address` as one node; close it, or use it in `with`.

    `local` is every chip of this host, of the best kind it has; `local:4` is four of them (on
    processors they share the cores). `cpu` or `cuda` in place of `local` choose the kind.

    Raises:
        UnknownName: no such kind of chip.
        InputError: the number is no number, or too large.
        ChipFailed: a worker did not start.
    """
    name, _, number = address.partition(":")
    kind = chip_kind(name)
    if number and not (number.isdecimal() and int(number)):
        raise InputError(f"{number!r} is not a number of chips", asked=address, fix="local:4")
    return Node(kind, int(number) if number else kind.count())


class Node:
    """Worker processes, one a chip, and the memory they share."""

    def __init__(self, kind: ChipKind, chips: int) -> None:
        kind.check(chips)
        self.kind = kind
        self.chips = chips
        self._failure: SupernodeError | None = None
        self._closed = False
        self._watch: Watch | None = None
        self._workers: list[WorkerProcess] = []
        self._loaded: list[LoadedStep] = []
        self._loads = 0
        self._tasks = tuple(Task(id=rank, stream=rank) for rank in range(chips))
        # The node is one rank more, behind the chips: it has an arena and rings doorbells.
        self._arenas = ArenaSet.create(chips + 1)
        try:
            self._fabric = SharedMemoryFabric.attach(self._arenas.fds, chips, deadline_s=_LOOK_UP_S)
            self.windows = [Window(fd) for fd in self._arenas.fds[1 : 1 + chips]]
            self._bell = Doorbell(self._fabric, chips)
            for rank in range(chips):
                self._workers.append(WorkerProcess(rank, chips, kind, self._arenas.fds))
            for worker in self._workers:
                assert isinstance(worker.receive(), Ready)
            self._watch = Watch(self._workers, self._arenas)
        except BaseException:
            self.close()
            raise
        _open.add(self)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers, by rank."""
        return tuple(worker.pid for worker in self._workers)

    def load(self, plan: Plan, values: Mapping[str, Tensor | float]) -> LoadedStep:
        """Ships `plan` to every chip, with its pieces of `values` (parameters, buffers, state).

        Each worker's random generator starts from the state of torch's here.

        Raises:
            InputError: the plan is for another number of chips, or `values` do not fit it.
            ChipFailed: a chip could not make itself ready.
        """
        if plan.mesh.size != self.chips:
            wrong = f"the plan is for {plan.mesh.size} chips, the node has {self.chips}"
            raise InputError(wrong, asked=str(plan.mesh), fix=f"connect('local:{plan.mesh.size}')")
        loaded = LoadedStep(self, plan, values)
        self._loaded.append(loaded)
        return loaded

    def ship(
        self, plan: Plan, arguments: dict[int, Tensor], numbers: Tensor
    ) -> tuple[int, list[Loaded]]:
        """Makes every worker load `plan`; gives its number and where each has its pieces."""
        load = Load(
            plan=plan,
            arguments={i: spot_of(tensor) for i, tensor in arguments.items()},
            numbers=spot_of(numbers),
            generator=torch.get_rng_state().numpy().tobytes(),
        )
        self.check_usable()
        try:
            for worker in self._workers:
                worker.send(load)
            self._bell.ring(Command.LOAD)
            answers = [worker.receive() for worker in self._workers]
        except SupernodeError as error:
            raise self.fail(error) from None
        self.await_all()
        self._loads += 1
        return self._loads - 1, [answer for answer in answers if isinstance(answer, Loaded)]

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor in the node's own arena, which every worker can read."""
        return self._fabric.empty(shape, dtype)

    def command(self, command: Command, plan: int, epoch: int) -> None:
        """Has every chip obey, and returns when all have.

        Raises:
            ChipFailed: a chip failed; the node is closed, the committed state can still be read.
        """
        self.check_usable()
        self._bell.ring(command, plan, epoch)
        self.await_all()

    def op_times(self) -> list[OpTimes]:
        """What each chip sends after a traced step, by rank."""
        try:
            answers = [worker.receive() for worker in self._workers]
        except SupernodeError as error:
            raise self.fail(error) from None
        return [answer for answer in answers if isinstance(answer, OpTimes)]

    def await_all(self) -> None:
        """Returns when every chip has obeyed the last command."""
        progress = Progress(self._tasks)
        progress.start()
        try:
            for rank in range(self.chips):
                self._bell.wait_for(rank)
                progress.finish(rank)
        except FabricAborted as error:
            raise self.fail(self._culprit(error)) from None
        except BaseException:
            self.fail(ChipFailed("the last step was interrupted"))
            raise
        assert progress.done

    def check_usable(self) -> None:
        """Raises what keeps this node from being used."""
        if self._closed:
            raise InputError("the node is closed", fix="connect anew")
        if self._failure is None and self._arenas.aborted() is not None:
            self.fail(self._culprit(ChipFailed(f"the run was stopped: {self._arenas.aborted()}")))
        if self._failure is not None:
            raise ChipFailed(
                f"the node has lost a chip: {self._failure.wrong}",
                asked=self._failure.asked,
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
            self._failure = error
        self._end_workers()
        return error

    def close(self) -> None:
        """Ends the workers and frees the memory; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        self._end_workers()
        for loaded in self._loaded:
            loaded.release()
        self.windows = []
        self._arenas.close()

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
        for worker in self._workers:
            worker.close()

    def _culprit(self, stopped: SupernodeError) -> SupernodeError:
        """The error of the chip that failed first, as far as one has said so."""
        for wait_s in (0.0, _CONFESSION_S):
            for worker in self._workers:
                known = worker.failure(wait_s)
                if known is not None:
                    return known
        return ChipFailed(stopped.wrong)


@atexit.register
def _close_all() -> None:
    for node in list(_open):
        node.close()
