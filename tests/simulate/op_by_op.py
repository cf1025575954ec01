"""A step simulated the plain way: every op of every call is a task, in the order of the program.

What `simulate` finds by stints (ops in a row as one task), and by each block once, is the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from supernode import ops
from supernode.ir import RECEIVE, SEND, STORE, WAIT, Op, Program
from supernode.machine import Machine
from supernode.plan import Plan, Task
from supernode.simulate import Terms
from supernode.simulate.ask import Asks
from supernode.simulate.event_loop import run_tasks
from supernode.simulate.line import lines
from supernode.simulate.price import Prices
from supernode.simulate.schedule import Lane
from supernode.simulate.terms import Handling
from supernode.trace import COMPUTE, COPY

Waits = frozenset[object]
"""The numbers of tasks, and of messages: (to which stage, which)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """All ops in the order in which they are issued, when each starts and ends, and the longest
    chain of ops that wait for each other."""

    names: list[str]
    start_s: list[float]
    end_s: list[float]
    chain_s: float


def simulate_op_by_op(plan: Plan, machine: Machine, terms: Terms) -> Reference:
    fusion = terms.fusion and machine.chip.fuses
    asks = Asks(plan, ops.cost, Handling(fusion=fusion, overlap=terms.overlap))
    mail: dict[object, Waits] = {}
    issued: list[tuple[Task, Op, int]] = []
    for stage, (_, program) in enumerate(plan.stages()):
        issued += _Stage(asks, stage, len(issued), mail).issued(program)
    tasks = [replace(task, deps=_delivered(task.deps, mail)) for task, _, _ in issued]
    prices = Prices(machine=machine, mesh=plan.mesh, terms=terms)
    alone_s = [prices.of(asks.of[ask]).time_s for _, _, ask in issued]
    times = run_tasks(tasks, alone_s, beside=terms.beside(machine.chip))
    chain_s: dict[object, float] = {}
    for at in sorted(range(len(tasks)), key=lambda at: times.start_s[at]):
        latest_s = max((chain_s[dep] for dep in tasks[at].deps), default=0.0)
        chain_s[tasks[at].id] = latest_s + alone_s[at]
    times = times.after(terms.host_s(machine))
    names = [op.name for _, op, _ in issued]
    return Reference(names, times.start_s, times.end_s, max(chain_s.values(), default=0.0))


def _delivered(deps: Iterable[object], mail: dict[object, Waits]) -> tuple[object, ...]:
    found: set[object] = set()
    for dep in deps:
        found.update(_delivered(mail[dep], mail) if isinstance(dep, tuple) else (dep,))
    return tuple(sorted(found, key=str))


class _Stage:
    def __init__(self, asks: Asks, stage: int, first: int, mail: dict[object, Waits]) -> None:
        self.asks, self.stage, self.first, self.mail = asks, stage, first, mail
        self.found: list[tuple[Task, Op, int]] = []
        self.last: Waits = frozenset()  # the op that was computed last
        self.awaited: Waits = frozenset()  # by the one that is computed next
        # Stretches of early collectives: after which op each is issued, and its tasks.
        self.stretches: list[tuple[Waits, list[int]]] = [(frozenset(), [])] * 2
        self.order: list[list[int]] = [self.stretches[-1][1], []]

    def issued(self, program: Program) -> list[tuple[Task, Op, int]]:
        made: dict[int, Waits] = {value.id: frozenset() for value in program.main.inputs}
        for line in lines(program):
            pairs = zip(line.block.inputs, line.given, strict=True)
            inside = {value.id: made[outer.id] for value, outer in pairs}
            for op, work in zip(line.block.ops, self.asks.works(line.block), strict=True):
                waits = frozenset[object]().union(*(inside[value.id] for value in op.inputs))
                self.awaited |= inside[op.inputs[1].id] if op.name == WAIT else frozenset()
                waits = self.add(op, None if work is None else work.ask, waits)
                inside |= {value.id: waits for value in op.outputs}
            pairs = zip(line.block.outputs, line.made, strict=True)
            made |= {outer.id: inside[value.id] for value, outer in pairs}
        return [self.found[at] for places in self.order for at in places]

    def add(self, op: Op, ask: int | None, waits: Waits) -> Waits:
        if ask is not None:
            waits = frozenset((self.issue(op, ask, waits),))
        if op.name == SEND:
            self.mail[op.args[2], op.args[3]] = waits
        return frozenset(((self.stage, op.args[3]),)) if op.name == RECEIVE else waits

    def issue(self, op: Op, ask: int, waits: Waits) -> int:
        at, stream = len(self.found), self.asks.of[ask].stream
        place = self.order[-1]
        if stream == COMPUTE:
            waits |= self.awaited
            self.last, self.awaited = frozenset((self.first + at,)), frozenset()
        elif waits or stream == COPY:
            waits |= self.last
        else:
            if self.stretches[-1][0] != self.last:
                self.stretches.append((self.last, []))
                self.order += [self.stretches[-1][1], []]
            waits, place = self.stretches[-2]
        place.append(at)
        out = op.name == SEND or (op.name == STORE and stream == COPY)
        lane = Lane(self.stage, stream, out)
        task = Task(id=self.first + at, deps=tuple(sorted(waits, key=str)), stream=lane)
        self.found.append((task, op, ask))
        return self.first + at
