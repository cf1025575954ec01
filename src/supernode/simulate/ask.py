"""What the ops of a plan ask of a chip, whatever the machine: each distinct demand once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from supernode.errors import UnknownOp
from supernode.ir import FETCH, RECEIVE, SEND, WAIT, Arg, Block, Op, Value, print_typed
from supernode.ops import Cost, Product
from supernode.plan import ON_HOST, Plan, crossings_of
from supernode.simulate.cast_first import gathered_narrow, scattered
from supernode.simulate.collective_time import (
    COLLECTIVE_OF,
    COLLECTIVES,
    Collective,
    carried,
    sent_bytes,
)
from supernode.simulate.comm.access import Access
from supernode.simulate.comm.experts import Way
from supernode.simulate.fusion import fused
from supernode.simulate.pieces import in_pieces
from supernode.simulate.side_by_side import CostOf
from supernode.simulate.sorted_rows import ROWS
from supernode.simulate.terms import Handling
from supernode.simulate.uses import Uses
from supernode.trace import COMM, COMPUTE, COPY, Stream

_EXPERTS: dict[str, Way] = {"fabric.dispatch": "dispatch", "fabric.combine": "combine"}
"""All-to-alls by kernels made for routed tokens: `(values, axis, copies, once)`."""
_COPIES = ("local.shard", "local.part", "local.once", "local.pad", "local.unpad")

MESSAGE = "send"
FETCHED, STORED = "fetch", "store"
"""What brings a value from where it lives, and takes it there."""
SENDING = (*COLLECTIVES, MESSAGE, FETCHED, STORED)
"""The kinds of what sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A collective over groups of `size` chips, `stride` apart; bytes as in `collective_time`.

    `way` is set where kernels for routed tokens do it: see `experts_time` for the rest. A `message`
    from one stage of a pipeline to another is one way of an all-to-all of two. `rows` are those of
    tokens that a router has sent to experts, or, with `back`, what experts made of them. With
    `pieces`, only one of so many waits, and the others go beside a product.
    """

    collective: Collective
    data_bytes: float
    stride: int
    size: int
    way: Way | None = None
    copies: int = 1
    once: bool = False
    message: bool = False
    rows: bool = False
    back: bool = False
    pieces: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A product beside which all pieces but one of some collectives go."""

    product: Cost
    sendings: tuple[Sending, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A copy between a chip's memory and where a value lives, a peer's memory `stride` chips away
    or the host's; both ways may go on at one time."""

    way: Access
    data_bytes: float
    stride: int


What = Cost | Beside | Sending | Moving


def computed(what: Cost | Beside) -> Cost:
    """What of it is computed."""
    return what.product if isinstance(what, Beside) else what


@dataclass(frozen=True, slots=True)
class Ask:
    """What ops of one kind and shape ask, and on which stream it is done."""

    what: What
    stream: Stream

    @property
    def kind(self) -> str:
        """`matmul` or `vector`, the collective, or the way of a copy."""
        what = self.what
        if isinstance(what, Cost | Beside):
            return computed(what).unit
        if isinstance(what, Moving):
            return FETCHED if what.way.endswith("read") else STORED
        return MESSAGE if what.message else what.collective

    @property
    def flops(self) -> float:
        """What is computed."""
        return computed(self.what).flops if isinstance(self.what, Cost | Beside) else 0.0

    @property
    def bytes(self) -> float:
        """What is read and written, or sent."""
        if isinstance(self.what, Cost | Beside):
            cost = computed(self.what)
            return cost.bytes_read + cost.bytes_written
        if isinstance(self.what, Moving):
            return self.what.data_bytes
        return sent_bytes(self.what.collective, self.what.data_bytes, self.what.size)


@dataclass(frozen=True, slots=True)
class Work:
    """An op that takes time; `ask` is the number of what it asks."""

    op: Op
    ask: int


class Asks:
    """What the ops of a plan ask, numbered; ops that look alike ask the same.

    `of[i]` is what has number `i`. `how` says what is fused, overlapped and cut in pieces, `stages`
    by its id which stage a block is of, where these differ.
    """

    def __init__(
        self,
        plan: Plan,
        cost: CostOf,
        how: Handling,
        *,
        stages: Mapping[int, int] | None = None,
    ) -> None:
        self.of: list[Ask] = []
        self._plan, self._cost, self._how = plan, cost, how
        self._mesh, self._stage = plan.mesh, 0
        self._stages = stages or {}
        self._numbers: dict[What, int] = {}
        self._seen: dict[object, int | None] = {}
        self._works: dict[int, tuple[Block, list[Work | None]]] = {}

    def works(self, block: Block) -> list[Work | None]:
        """The ops of a block, None for one that takes no time; of each block found once."""
        if id(block) not in self._works:  # whose id is its own as long as it is kept
            self._stage = self._stages.get(id(block), 0)
            self._mesh = (self._plan.mesh.stages or (self._plan.mesh,))[self._stage]
            self._works[id(block)] = block, self._found(block)
        return self._works[id(block)][1]

    def _found(self, block: Block) -> list[Work | None]:
        ops, uses = block.ops, Uses.of(block.ops, block.outputs)
        joined: Mapping[int, Cost] = {}
        if self._how.fusion:
            joined = fused(uses, self._cost, self._how.rows, sums=self._how.sums)
        numbers = [
            self._number(joined[at]) if at in joined else self._alike(op)
            for at, op in enumerate(ops)
        ]
        numbers = self._cast_first(uses, numbers)
        if self._how.pieces:
            numbers = self._cut(uses, numbers)
        pairs = zip(ops, numbers, strict=True)
        return [None if number is None else Work(op, number) for op, number in pairs]

    def hidden(self, ask: int) -> bool:
        """Whether the chip computes for another microbatch until what is asked has come."""
        what = self.of[ask].what
        routed = isinstance(what, Sending) and (what.rows or what.way is not None)
        return routed and self._how.rows.paired and self._how.overlap

    def _cut(self, uses: Uses, numbers: Sequence[int | None]) -> list[int | None]:
        """What these ask where collectives go piece by piece beside products."""
        found = [*numbers]
        beside: dict[int, list[Sending]] = {}
        for at, product in in_pieces(uses).items():
            what = None if (number := numbers[at]) is None else self.of[number].what
            if isinstance(what, Sending) and numbers[product] is not None:
                beside.setdefault(product, []).append(what)
                found[at] = self._number(replace(what, pieces=what.size))
        for product, sendings in beside.items():
            number = numbers[product]
            what = None if number is None else self.of[number].what
            if isinstance(what, Cost):
                found[product] = self._number(Beside(product=what, sendings=tuple(sendings)))
        return found

    def _cast_first(self, uses: Uses, numbers: Sequence[int | None]) -> list[int | None]:
        """What these ask where what is gathered for products in few bits is cast first."""
        found = [*numbers]
        for at, product, share in gathered_narrow(uses, self._cost):
            what = None if (number := found[at]) is None else self.of[number].what
            if isinstance(what, Sending):
                found[at] = self._number(replace(what, data_bytes=what.data_bytes * share))
                found[product] = self._shared(found[product], what.size, "cast_bytes")
        for at, product in scattered(uses):
            what = None if (number := found[at]) is None else self.of[number].what
            if isinstance(what, Sending):
                found[product] = self._shared(found[product], what.size, "gradient_cast_bytes")
        return found

    def _shared(self, number: int | None, chips: int, casts: str) -> int | None:
        """A product some of whose casts so many chips share."""
        what = None if number is None else self.of[number].what
        if not isinstance(what, Cost) or not isinstance(what.shape, Product):
            return number
        each = {casts: getattr(what.shape, casts) / chips}
        return self._number(replace(what, shape=replace(what.shape, **each)))

    def _alike(self, op: Op) -> int | None:
        seen: dict[int, int] = {}
        kwargs = tuple((name, _look(arg, seen)) for name, arg in op.kwargs)
        letter = op.name in (SEND, RECEIVE) and not self._plan.mesh.stages
        args = op.args[:2] if letter else op.args  # not to whom
        site = (op.site.phase, op.site.module)  # by which rules of costs tell ops apart
        look = (op.name, site, self._stage, _look(args, seen), kwargs)
        if look not in self._seen:
            self._seen[look] = self._number(self._what(op))
        return self._seen[look]

    def _number(self, what: What) -> int | None:
        if _is_nothing(what):
            return None
        if what not in self._numbers:
            self._numbers[what] = len(self.of)
            self.of.append(Ask(what, self._stream(what)))
        return self._numbers[what]

    def _stream(self, what: What) -> Stream:
        if isinstance(what, Cost | Beside) or not self._how.overlap:
            return COMPUTE
        return COMM if isinstance(what, Sending) else COPY

    def _what(self, op: Op) -> What:
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
            rows=op.name == ROWS,
            back=op.name == ROWS and bool(op.args[3]),
        )

    def _message(self, op: Op) -> Sending:
        """What comes in takes no time of its own."""
        if self._plan.mesh.stages:
            return self._parts(op)
        axis = op.args[1]
        assert isinstance(axis, str)
        size_bytes = float(sum(value.type.size_bytes for value in op.inputs))
        return Sending(
            collective="all_to_all",
            data_bytes=2 * size_bytes,
            stride=self._mesh.stride(axis),
            size=2 if size_bytes else 1,
            message=True,
        )

    def _parts(self, op: Op) -> Sending:
        """A message between stages of different layouts: what the busiest chip sends or gets."""
        mesh, other = self._plan.mesh, op.args[2]
        assert isinstance(other, int)
        busy: Counter[int] = Counter()
        if op.name == SEND:
            for each in crossings_of(op, mesh, self._stage):
                size_bytes = each.size_bytes(op.inputs[0].type)
                busy[each.source] += size_bytes
                busy[each.target] += size_bytes
        most_bytes = float(max(busy.values(), default=0))
        return Sending(
            collective="all_to_all",
            data_bytes=2 * most_bytes,
            stride=abs(mesh.stages[other].first - mesh.stages[self._stage].first),
            size=2 if most_bytes else 1,
            message=True,
        )

    def _move(self, op: Op) -> What:
        """Waiting takes no time of its own. A peer may be at the other end, the host is near."""
        if op.name == WAIT:
            return Cost()
        data_bytes = float(op.outputs[0].type.size_bytes)
        way: Access = "read" if op.name == FETCH else "write"
        if op.args[1] != ON_HOST:
            return Moving(way=way, data_bytes=data_bytes, stride=self._plan.mesh.size - 1)
        way = "host_read" if op.name == FETCH else "host_write"
        return Moving(way=way, data_bytes=data_bytes, stride=1)


def _is_nothing(what: What) -> bool:
    if isinstance(what, Sending):
        return what.size == 1
    if isinstance(what, Moving):
        return not what.data_bytes
    if isinstance(what, Beside):
        return False
    return not (what.flops or what.bytes_read or what.bytes_written)


def _look(arg: Arg, seen: dict[int, int]) -> object:
    """What of an argument a cost may depend on; a value read twice moves once."""
    if isinstance(arg, Value):
        return arg.type, seen.setdefault(arg.id, len(seen))
    return tuple(_look(item, seen) for item in arg) if isinstance(arg, tuple) else arg


def _copy(op: Op) -> Cost:
    """What is cut out, filled up or left is read and written; a stretch of rows stays in place."""
    if op.name == "local.part" and op.args[1] == 0:
        return Cost()
    size_bytes = float(sum(value.type.size_bytes for value in op.outputs))
    return Cost(bytes_read=size_bytes, bytes_written=size_bytes, unit="vector")
