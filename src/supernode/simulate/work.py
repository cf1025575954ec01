"""What each op of a plan asks of a chip."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from supernode.errors import UnknownOp
from supernode.ir import Arg, Op, Value, print_typed
from supernode.machine import Machine
from supernode.ops import Cost
from supernode.plan import Mesh
from supernode.simulate.collective_time import COLLECTIVES, Collective, collective_time, sent_bytes
from supernode.simulate.fusion import fused
from supernode.simulate.op_time import op_time
from supernode.simulate.terms import Terms
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

    def __init__(self, machine: Machine, mesh: Mesh, cost: CostOf, terms: Terms) -> None:
        self._machine = machine
        self._mesh = mesh
        self._cost = cost
        self._terms = terms
        self._known: dict[object, Price] = {}

    def works(self, ops: Sequence[Op], kept: Iterable[Value]) -> list[Work | None]:
        """Each op with its price, None if it takes no time; `kept` values are read afterwards."""
        if not (self._terms.fusion and self._machine.chip.fuses):
            return [self._work(op) for op in ops]
        joined = fused(ops, kept, self._cost)
        return [
            self._work(op) if at not in joined else self._kernel(op, joined[at])
            for at, op in enumerate(ops)
        ]

    def _kernel(self, op: Op, cost: Cost) -> Work | None:
        price = self._computing(cost)
        return Work(op, price) if price.timing.time_s else None

    def _work(self, op: Op) -> Work | None:
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
        copies = op.name in ("local.shard", "local.part")
        return self._computing(_copy(op) if copies else self._cost(op))

    def _computing(self, cost: Cost) -> Price:
        chip = self._machine.chip
        timing = op_time(cost, chip, rows_factor=self._terms.imbalance)
        if timing.time_s:
            timing = self._terms.slowed(timing, chip, self._mesh.size)
        return Price(
            stream=COMPUTE,
            kind=cost.unit,
            flops=cost.flops,
            bytes=cost.bytes_read + cost.bytes_written,
            timing=timing,
        )

    def _collective(self, op: Op) -> Price:
        kind = _COLLECTIVE.get(op.name)
        if kind is None:
            fix = "add its time to src/supernode/simulate/collective_time.py"
            wrong = f"no time is known for {op.name}"
            raise UnknownOp(wrong, op=print_typed(op), where=str(op.site), fix=fix)
        axis = op.args[1]
        assert isinstance(axis, str)
        values = op.outputs if kind == "all_gather" else op.inputs
        data_bytes = float(sum(value.type.size_bytes for value in values))
        size, stride = self._mesh.axis_size(axis), self._mesh.stride(axis)
        return Price(
            stream=COMM if self._terms.overlap else COMPUTE,
            kind=kind,
            flops=0.0,
            bytes=sent_bytes(kind, data_bytes, size),
            timing=collective_time(
                kind,
                data_bytes,
                machine=self._machine,
                stride=stride,
                size=size,
                small_at_once=self._terms.small_at_once,
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
