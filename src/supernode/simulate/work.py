"""What each op of a plan asks of a chip."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from supernode.errors import UnknownOp
from supernode.ir import FETCH, RECEIVE, SEND, WAIT, Arg, Op, Value, print_typed
from supernode.machine import Machine
from supernode.ops import Cost
from supernode.plan import ON_HOST, Mesh
from supernode.simulate.collective_time import (
    COLLECTIVE_OF,
    Collective,
    carried,
    collective_time,
    sent_bytes,
)
from supernode.simulate.comm.access import Access, access_time
from supernode.simulate.comm.experts import Way, experts_time
from supernode.simulate.fusion import fused
from supernode.simulate.op_time import op_time
from supernode.simulate.terms import Terms
from supernode.simulate.timing import Timing
from supernode.trace import COMM, COMPUTE, COPY, Stream

_EXPERTS: dict[str, Way] = {"fabric.dispatch": "dispatch", "fabric.combine": "combine"}
"""All-to-alls by kernels made for routed tokens: `(values, axis, copies, once)`."""
_COPIES = ("local.shard", "local.part", "local.pad", "local.unpad")

MESSAGE = "send"
FETCHED, STORED = "fetch", "store"
"""What brings a value from where it lives, and takes it there."""

CostOf = Callable[[Op], Cost]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A collective over groups of `size` chips, `stride` apart; bytes as in `collective_time`.

    `way` is set where kernels for routed tokens do it: see `experts_time` for the rest. A `message`
    from one stage of a pipeline to another is one way of an all-to-all of two.
    """

    collective: Collective
    data_bytes: float
    stride: int
    size: int
    way: Way | None = None
    copies: int = 1
    once: bool = False
    message: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A copy between a chip's memory and where a value lives, a peer's memory `stride` chips away
    or the host's; both ways may go on at one time."""

    way: Access
    data_bytes: float
    stride: int


Ask = Cost | Sending | Moving
"""What an op asks of any machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What ops of one kind and shape take: FLOP, bytes moved or sent, and time."""

    ask: Ask
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
        self._known: dict[object, Price | None] = {}

    def works(self, ops: Sequence[Op], kept: Iterable[Value]) -> list[Work | None]:
        """Each op with its price, None if it takes no time; `kept` values are read afterwards."""
        joined: dict[int, Cost] = {}
        if self._terms.fusion and self._machine.chip.fuses:
            joined = fused(ops, kept, self._cost)
        prices = (
            self.price(joined[at]) if at in joined else self._price(op) for at, op in enumerate(ops)
        )
        pairs = zip(ops, prices, strict=True)
        return [None if price is None else Work(op, price) for op, price in pairs]

    def again(self, works: Sequence[Work]) -> list[Work]:
        """Works that were priced on another machine, with what they take on this one."""
        known: dict[int, Price] = {}
        for work in works:
            if id(work.price) not in known:
                price = self.price(work.price.ask)
                assert price is not None
                known[id(work.price)] = price
        return [Work(work.op, known[id(work.price)]) for work in works]

    def price(self, ask: Ask) -> Price | None:
        """What is asked, with its time here; None if nothing is."""
        if isinstance(ask, Sending):
            return self._sending(ask) if ask.size > 1 else None
        if isinstance(ask, Moving):
            return self._moving(ask) if ask.data_bytes else None
        return self._computing(ask) if ask.flops or ask.bytes_read or ask.bytes_written else None

    def _price(self, op: Op) -> Price | None:
        seen: dict[int, int] = {}
        kwargs = tuple((name, _look(arg, seen)) for name, arg in op.kwargs)
        args = op.args[:2] if op.name in (SEND, RECEIVE) else op.args  # not to whom
        look = (op.name, _look(args, seen), kwargs)
        if look not in self._known:
            self._known[look] = self.price(self._ask(op))
        return self._known[look]

    def _ask(self, op: Op) -> Ask:
        if op.name.startswith("place."):
            return self._move(op)
        if not op.name.startswith("fabric."):
            return _copy(op) if op.name in _COPIES else self._cost(op)
        if op.name in (SEND, RECEIVE):
            return self._message(op)
        way = _EXPERTS.get(op.name)
        kind = COLLECTIVE_OF.get(op.name)
        if kind is None:
            fix = "add its time to src/supernode/simulate/collective_time.py"
            wrong = f"no time is known for {op.name}"
            raise UnknownOp(wrong, op=print_typed(op), where=str(op.site), fix=fix)
        axis = op.args[1]
        assert isinstance(axis, str)
        return Sending(
            collective=kind,
            data_bytes=float(sum(value.type.size_bytes for value in carried(op))),
            stride=self._mesh.stride(axis),
            size=self._mesh.axis_size(axis),
            way=way,
            copies=int(op.args[2]) if way else 1,  # type: ignore[arg-type]
            once=bool(op.args[3]) if way else False,
        )

    def _message(self, op: Op) -> Ask:
        """What comes in takes no time of its own."""
        axis = op.args[1]
        assert isinstance(axis, str)
        size_bytes = float(sum(value.type.size_bytes for value in op.inputs))
        stride = self._mesh.stride(axis)
        return Sending(
            collective="all_to_all",
            data_bytes=2 * size_bytes,
            stride=stride,
            size=2 if size_bytes else 1,
            message=True,
        )

    def _move(self, op: Op) -> Ask:
        """Waiting takes no time of its own. A peer may be at the other end, the host is near."""
        if op.name == WAIT:
            return Cost()
        data_bytes = float(op.outputs[0].type.size_bytes)
        way: Access = "read" if op.name == FETCH else "write"
        if op.args[1] != ON_HOST:
            return Moving(way=way, data_bytes=data_bytes, stride=self._mesh.size - 1)
        way = "host_read" if op.name == FETCH else "host_write"
        return Moving(way=way, data_bytes=data_bytes, stride=1)

    def _moving(self, ask: Moving) -> Price:
        found = access_time(ask.way, ask.data_bytes, machine=self._machine, stride=ask.stride)
        return Price(
            ask=ask,
            stream=COPY if self._terms.overlap else COMPUTE,
            kind=FETCHED if ask.way.endswith("read") else STORED,
            flops=0.0,
            bytes=ask.data_bytes,
            timing=found,
        )

    def _computing(self, cost: Cost) -> Price:
        chip = self._machine.chip
        timing = op_time(cost, chip, rows_factor=self._terms.imbalance)
        return Price(
            ask=cost,
            stream=COMPUTE,
            kind=cost.unit,
            flops=cost.flops,
            bytes=cost.bytes_read + cost.bytes_written,
            timing=self._terms.slowed(timing, chip, self._mesh.size),
        )

    def _sending(self, ask: Sending) -> Price:
        return Price(
            ask=ask,
            stream=COMM if self._terms.overlap else COMPUTE,
            kind=MESSAGE if ask.message else ask.collective,
            flops=0.0,
            bytes=sent_bytes(ask.collective, ask.data_bytes, ask.size),
            timing=self._sent(ask),
        )

    def _sent(self, ask: Sending) -> Timing:
        if ask.way is not None:
            return experts_time(
                ask.way,
                ask.data_bytes,
                copies=ask.copies,
                once=ask.once,
                machine=self._machine,
                stride=ask.stride,
                size=ask.size,
            )
        return collective_time(
            ask.collective,
            ask.data_bytes,
            machine=self._machine,
            stride=ask.stride,
            size=ask.size,
            small_at_once=self._terms.small_at_once,
        )


def _look(arg: Arg, seen: dict[int, int]) -> object:
    """What of an argument a price may depend on; a value read twice moves once."""
    if isinstance(arg, Value):
        return arg.type, seen.setdefault(arg.id, len(seen))
    return tuple(_look(item, seen) for item in arg) if isinstance(arg, tuple) else arg


def _copy(op: Op) -> Cost:
    """What is cut out, filled up or left is read and written."""
    size_bytes = float(sum(value.type.size_bytes for value in op.outputs))
    return Cost(bytes_read=size_bytes, bytes_written=size_bytes, unit="vector")
