"""LoadedStep: a plan on the chips of a node, with its state; steps, pulls and pushes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supernode.errors import ChipFailed, InputError, UnknownName, near_matches
from supernode.ir import HostType, Role
from supernode.plan import Layout, Plan
from supernode.run.engine.check import Expected
from supernode.run.engine.doorbell import Command
from supernode.run.engine.messages import OpTimes
from supernode.run.engine.shards import gather, scatter
from supernode.run.engine.spans import as_trace
from supernode.trace import Trace

if TYPE_CHECKING:
    from supernode.run.engine.node import Node

Number = Tensor | float
STATE: tuple[Role, ...] = ("param", "buffer", "state", "constant")


class LoadedStep:
    """A plan whose code and state are on the chips; `Node.load` makes it.

    The state has two epochs: a step reads one and writes the other, and only when every chip is
    done does the node turn to the new one. A step that fails leaves the last whole one readable.
    """

    def __init__(
        self,
        node: Node,
        plan: Plan,
        values: Mapping[str, Tensor | float],
        memory_bytes: float | None = None,
    ) -> None:
        program = plan.program
        self._settable = Expected(program, (*STATE, "host"))
        self._args, self._host = Expected(program, ("arg",)), Expected(program, ("host",))
        self._settable.check(values)
        host = self._host.types
        Expected(program, STATE).check_all({n: v for n, v in values.items() if n not in host})
        self._node = node
        self.plan = plan
        self._ports = {port.name: i for i, port in enumerate(program.inputs)}
        self._epoch = 0
        self._given: dict[str, float] = {}
        self._numbers = {
            name: float(values.get(name, 0.0))
            for name, i in self._ports.items()
            if isinstance(program.main.inputs[i].type, HostType)
        }
        self._unset = {
            port.name for port in program.inputs if port.role == "host" and port.name not in values
        }
        self._number_words = node.empty((max(1, len(self._numbers)),), torch.float64)
        self._arguments = {
            i: node.empty(value.tensor.shape, getattr(torch, value.tensor.dtype))
            for i, value in enumerate(program.main.inputs)
            if program.inputs[i].role == "arg"
        }
        self._id, places = node.ship(plan, self._arguments, self._number_words, memory_bytes)
        self._state = {
            i: [
                [node.tensor(place.state[i][epoch]) for place in places]
                for epoch in range(len(places[0].state[i]))
            ]
            for i in places[0].state
        }
        self._results = {
            i: [node.tensor(place.results[i]) for place in places] for i in places[0].results
        }
        self.push(values)

    def step(
        self, args: Mapping[str, Tensor], host: Mapping[str, float] | None = None
    ) -> list[Number]:
        """Runs one step on all chips: its results, as new global tensors and floats.

        `args` are the arguments by the names of their ports; `host` the numbers, of which those
        left out keep their value.

        Raises:
            InputError: an argument does not fit the plan; nothing has run.
            ChipFailed: a chip failed; the error names the chip, the op and its source line.
        """
        with self._node.turn:
            self._hand_over(args, host or {})
            with self._naming_itself():
                self._node.command(Command.STEP, self._id, self._epoch)
            return self._commit()

    def traced_step(
        self,
        args: Mapping[str, Tensor],
        host: Mapping[str, float] | None = None,
        *,
        memory: bool = False,
    ) -> tuple[list[Number], Trace]:
        """A step as above, with when each op ran on each chip.

        With `memory` also with what each chip held meanwhile, and what the plan had foretold;
        measuring that takes time, so ops last longer.
        """
        command = Command.TRACED_MEMORY if memory else Command.TRACED_STEP
        with self._node.turn:
            self._hand_over(args, host or {})
            with self._naming_itself():
                answers = self._node.ask(command, self._id, self._epoch)
            results = self._commit()
        return results, as_trace(self.plan, [a for a in answers if isinstance(a, OpTimes)])

    def pull(self, names: Iterable[str] | None = None) -> dict[str, Number]:
        """The state as global tensors, by name: all of it, or what `names` asks for.

        Raises:
            UnknownName: a name is none of a parameter, buffer or piece of state.
        """
        known = [port.name for port in self.plan.program.inputs if port.role in STATE]
        chosen = known if names is None else list(names)
        for name in chosen:
            if name not in known:
                raise UnknownName(f"no state named {name!r}", fix=near_matches(name, known))
        with self._node.turn:
            self._node.check_open()
            self._save()
            return {name: self._pulled(name) for name in chosen}

    def push(self, values: Mapping[str, Tensor | float]) -> None:
        """Replaces state and host numbers by name; what is not named stays.

        Raises:
            InputError: a value does not fit the plan; nothing is replaced.
        """
        with self._node.turn:
            self._node.check_usable()
            self._settable.check(values)
            if not self._node.kind.state_in_arena:
                self._save()
            for name, value in values.items():
                i = self._ports[name]
                if name in self._numbers:
                    self._numbers[name] = float(value)
                    self._unset.discard(name)
                    continue
                assert isinstance(value, Tensor)
                scatter(value.detach(), self._layout(i), self.plan.mesh, self._pieces(i))
            if not self._node.kind.state_in_arena:
                self._node.command(Command.RESTORE, self._id, self._epoch)

    def release(self) -> None:
        """Lets go of the arenas, when the node closes."""
        self._state, self._results, self._arguments = {}, {}, {}
        self._number_words = torch.empty(0)

    @contextmanager
    def _naming_itself(self) -> Generator[None]:
        """Says in a chip's error which step on which chips it was."""
        try:
            yield
        except ChipFailed as error:
            chips = "1 chip" if self.plan.mesh.size == 1 else f"{self.plan.mesh.size} chips"
            layout = self.plan.layout and f", layout {self.plan.layout}"
            error.complete(asked=f"step {self.plan.program.name} on {chips}{layout}")
            raise

    def _hand_over(self, args: Mapping[str, Tensor], host: Mapping[str, float]) -> None:
        self._node.check_usable()
        self._args.check_all(args)
        self._host.check(host)
        missing = self._unset - host.keys()
        if missing:
            raise InputError(f"no value yet for {', '.join(sorted(missing))}")
        for name, tensor in args.items():
            self._arguments[self._ports[name]].copy_(tensor.detach())
        self._given = {**self._numbers, **{name: float(x) for name, x in host.items()}}
        if self._given:
            words = torch.tensor(tuple(self._given.values()), dtype=torch.float64)
            self._number_words.copy_(words)

    def _commit(self) -> list[Number]:
        """Turns to the new epoch. From here on the step has happened."""
        program = self.plan.program
        self._epoch += 1
        self._numbers = self._given
        self._unset.clear()
        results: list[Number] = []
        for i, source in enumerate(program.updates):
            if source is None:
                results.append(self._result(i))
            elif i in self._results:
                self._numbers[program.inputs[source].name] = float(self._results[i][0])
        return results

    def _result(self, i: int) -> Number:
        layout = self.plan.outputs[i]
        if layout is None:
            return float(self._results[i][0])
        shape = self.plan.program.main.outputs[i].tensor.shape
        return gather(shape, layout, self.plan.mesh, self._results[i])

    def _pulled(self, name: str) -> Number:
        if name in self._numbers:
            return self._numbers[name]
        i = self._ports[name]
        shape = self.plan.program.main.inputs[i].tensor.shape
        return gather(shape, self._layout(i), self.plan.mesh, self._pieces(i))

    def _save(self) -> None:
        if not self._node.kind.state_in_arena:
            self._node.command(Command.SAVE, self._id, self._epoch)

    def _pieces(self, i: int) -> list[Tensor]:
        epochs = self._state[i]
        return epochs[self._epoch % len(epochs)]

    def _layout(self, i: int) -> Layout:
        layout = self.plan.inputs[i]
        assert layout is not None
        return layout
