"""What each op of a plan asks of a chip, and the order it may be done in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from supernode.errors import UnknownOp
from supernode.ir import CALL, Arg, Block, Op, Program, Value, print_op
from supernode.machine import Machine
from supernode.ops import Cost
from supernode.plan import Mesh
from supernode.plan.progress import Task
from supernode.simulate.collective_time import COLLECTIVES, Collective, collective_time, sent_bytes
from supernode.simulate.op_time import op_time
from supernode.simulate.timing import Timing
from supernode.trace import COMM, COMPUTE, Stream

_COLLECTIVE: dict[str, Collective] = {f"fabric.{name}": name for name in COLLECTIVES}

CostOf = Callable[[Op], Cost]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What ops of one kind and shape take: FLOP, bytes moved or sent, and time."""

    stream: Stream
    kind: str
    flops: float
    bytes: float
    timing: Timing


@dataclass(frozen=True, slots=True)
class Work:
    """An op that takes time, with its price."""

    op: Op
    price: Price


class Prices:
    """The price of each op of a plan on a machine, found once for all ops that look alike."""

    def __init__(self, machine: Machine, mesh: Mesh, cost: CostOf) -> None:
        self._machine = machine
        self._mesh = mesh
        self._cost = cost
        self._known: dict[object, Price] = {}

    def work(self, op: Op) -> Work | None:
        """The op with its price; None if it takes no time."""
        seen: dict[int, int] = {}
        kwargs = tuple((name, _look(arg, seen)) for name, arg in op.kwargs)
        look = (op.name, _look(op.args, seen), kwargs)
        price = self._known.get(look)
        if price is None:
            price = self._known[look] = self._price(op)
        return Work(op, price) if price.timing.time_s else None

    def _price(self, op: Op) -> Price:
        if op.name.startswith("fabric."):
            return self._collective(op)
        cost = _copy(op) if op.name == "local.shard" else self._cost(op)
        return Price(
            stream=COMPUTE,
            kind=cost.unit,
            flops=cost.flops,
            bytes=cost.bytes_read + cost.bytes_written,
            timing=op_time(cost, self._machine.chip),
        )

    def _collective(self, op: Op) -> Price:
        kind = _COLLECTIVE.get(op.name)
        if kind is None:
            fix = "add its time to src/supernode/simulate/collective_time.py"
            raise UnknownOp(f"no time is known for {print_op(op)}", where=str(op.site), fix=fix)
        axis = op.args[1]
        assert isinstance(axis, str)
        values = op.outputs if kind == "all_gather" else op.inputs
        data_bytes = float(sum(value.type.size_bytes for value in values))
        size, stride = self._mesh.axis_size(axis), self._mesh.stride(axis)
        return Price(
            stream=COMM,
            kind=kind,
            flops=0.0,
            bytes=sent_bytes(kind, data_bytes, size),
            timing=collective_time(
                kind, data_bytes, machine=self._machine, stride=stride, size=size
            ),
        )


def _look(arg: Arg, seen: dict[int, int]) -> object:
    """What of an argument a price may depend on; a value read twice moves once."""
    if isinstance(arg, Value):
        return arg.type, seen.setdefault(arg.id, len(seen))
    return tuple(_look(item, seen) for item in arg) if isinstance(arg, tuple) else arg


def _copy(op: Op) -> Cost:
    """A shard is cut out: its bytes are read and written."""
    size_bytes = float(sum(value.type.size_bytes for value in op.outputs))
    return Cost(bytes_read=size_bytes, bytes_written=size_bytes, unit="vector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All work of a step in program order, calls expanded.

    `tasks[i]` is the task of `works[i]`, and `positions[i]` its place among all expanded ops.
    """

    works: list[Work]
    tasks: list[Task]
    positions: list[int]


Producers = tuple[int, ...]


class _Scheduler:
    def __init__(self) -> None:
        self.works: list[Work] = []
        self.tasks: list[Task] = []
        self.positions: list[int] = []
        self._position = 0
        self._issued: Producers = ()

    def run(
        self, block: Block, works: list[Work | None], made_by: dict[int, Producers]
    ) -> dict[int, Producers]:
        """Adds the ops of `block`; `made_by` says which tasks a value waits for."""
        for op, work in zip(block.ops, works, strict=True):
            self.add(op, work, made_by)
        return made_by

    def add(self, op: Op, work: Work | None, made_by: dict[int, Producers]) -> None:
        found = {task for value in op.inputs for task in made_by[value.id]}
        if work is not None:
            task = len(self.tasks)
            stream = work.price.stream
            # A collective is issued where it stands in the program: after the op before it.
            deps = found.union(self._issued) if stream == COMM else found
            self.works.append(work)
            self.tasks.append(Task(id=task, deps=tuple(sorted(deps)), stream=stream))
            self.positions.append(self._position)
            found = {task}
            if stream == COMPUTE:
                self._issued = (task,)
        made = tuple(sorted(found))
        for value in op.outputs:
            made_by[value.id] = made
        self._position += 1


def schedule(program: Program, prices: Prices) -> Schedule:
    """The tasks of one chip.

    Ops that take no time are no tasks: what reads a view waits for its base. Each repeated block
    is priced once.
    """
    blocks: Mapping[str, tuple[Block, list[Work | None]]] = {
        block.name: (block, [prices.work(op) for op in block.ops]) for block in program.blocks
    }
    scheduler = _Scheduler()
    made_by: dict[int, Producers] = {value.id: () for value in program.main.inputs}
    for op in program.main.ops:
        if op.name != CALL:
            scheduler.add(op, prices.work(op), made_by)
            continue
        block, works = blocks[op.block]
        given = zip(block.inputs, op.inputs, strict=True)
        inside = scheduler.run(block, works, {v.id: made_by[outer.id] for v, outer in given})
        made_by |= {
            outer.id: inside[value.id]
            for value, outer in zip(block.outputs, op.outputs, strict=True)
        }
    return Schedule(works=scheduler.works, tasks=scheduler.tasks, positions=scheduler.positions)
