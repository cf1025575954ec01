"""The optimizer parameter by parameter, so that it needs little of its state at one time."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from supernode.ir import CALL, RECEIVE, SEND, Op, Program, TensorType, Value, called
from supernode.partition.fuse import written_out

Label = Hashable
"""What unit an op belongs to; None goes with the op before it."""


@dataclass(frozen=True, slots=True)
class Amid:
    """The label of an update amid backward: a unit of its own, as near as the one before it."""

    label: Label


_SHARED = object()


def by_parameter(program: Program) -> tuple[Program, list[Label]]:
    """`program` with what follows backward ordered by parameter, and the label of each op of main.

    A parameter is updated behind the unit that ends its gradient, in the midst of backward where
    nothing of the rest of backward is needed for it (as a norm of all gradients would be), and
    nothing is sent after. Ops with one label that follow each other are a unit: a call, the ops of
    a layer in one phase, the update of a parameter. Calls of the optimizer are written out. Results
    are unchanged, and so is the order of what is sent.
    """
    ops = program.main.ops
    end = 1 + max(
        (at for at, op in enumerate(ops) if op.site.phase == "backward"), default=len(ops)
    )
    calls = {at for at, op in enumerate(ops) if at >= end and op.name == CALL}
    main, _ = written_out(program, calls)
    labels = [_label(at, op) for at, op in enumerate(main.ops[:end])]
    tail = _Tail(replace(program, main=main), labels)
    order, behind = list[Op](), list[Label]()
    for at, op in enumerate((*main.ops[:end], None)):
        for update in tail.at[at]:
            order.append(tail.ops[update])
            label = tail.label(update)
            behind.append(label if op is None or label is None else Amid(label))
        if op is not None:
            order.append(op)
            behind.append(labels[at])
    main = replace(main, ops=tuple(order))
    return replace(program, main=main, blocks=called(program.blocks, main.ops)), behind


def near(labels: Sequence[Label]) -> list[int]:
    """The numbers of the units of each op, what runs amid backward being no unit of its own."""
    return numbered([None if isinstance(label, Amid) else label for label in labels])


def numbered(labels: Sequence[Label]) -> list[int]:
    """The number of the unit of each op."""
    units: list[int] = []
    last: Label = None
    for label in labels:
        before = units[-1] if units else 0
        fresh = label is not None and label != last
        units.append(before + 1 if fresh and units else before)
        last = label if label is not None else last
    return units


def _label(at: int, op: Op) -> Label:
    if op.name == CALL:
        return ("call", at)
    return (op.site.phase, op.site.layer or op.site.module)


class _Tail:
    """The ops that follow backward, by position among themselves.

    `labels` are those of the ops up to there. `at[i]` are the ops that come before op `i` of main,
    in their order.
    """

    def __init__(self, program: Program, labels: Sequence[Label]) -> None:
        self.program, self._end = program, len(labels)
        self.ops = program.main.ops[self._end :]
        self._made = {value.id: at for at, op in enumerate(self.ops) for value in op.outputs}
        self._owner = self._owners()
        self._state = {
            value.id: port.of or port.name
            for port, value in zip(program.inputs, program.main.inputs, strict=True)
            if port.role in ("param", "state")
        }
        self._keys: dict[int, Label] = {}
        for at, op in enumerate(self.ops):
            self._keys[at] = self._key(at, op)
        self._ready = self._earliest(numbered(labels))
        self.at = self._order()

    def label(self, at: int) -> Label:
        """The parameter whose update an op belongs to, or a label of its own."""
        return self._keys[at]

    def _earliest(self, units: Sequence[int]) -> list[int]:
        """Before which op of main each op may come: behind the unit that makes what it reads, and
        behind all that is sent."""
        ends = {unit: at + 1 for at, unit in enumerate(units)}
        made: dict[int, int] = {}
        sent = 0
        for op, unit in zip(self.program.main.ops, units, strict=False):
            made |= dict.fromkeys((value.id for value in op.outputs), ends[unit])
            sent = ends[unit] if op.name == SEND else sent
        if any(op.name == SEND for op in self.ops):
            sent = self._end
        found: list[int] = []
        for op in self.ops:
            waits = max((made.get(value.id, 0) for value in op.inputs), default=0)
            found.append(self._end if op.name == RECEIVE else max(sent, waits))
            made |= dict.fromkeys((value.id for value in op.outputs), found[-1])
        return found

    def _order(self) -> dict[int, list[int]]:
        """What is sent and the results come first, then parameter after parameter."""
        found: dict[int, list[int]] = defaultdict(list)
        written: set[int] = set()
        goals = [(max(self._ready[at] for at in wanted), wanted) for _, wanted in self._goals()]
        for place, wanted in sorted(goals, key=lambda goal: goal[0]):
            lead = self._leading_to(wanted, written)
            written |= lead
            found[place] += sorted(lead)
        found[self._end] += (at for at in range(len(self.ops)) if at not in written)
        return found

    def _goals(self) -> Iterator[tuple[Label, list[int]]]:
        """The ops that something outside waits for, by parameter."""
        main, ports = self.program.main, self.program.inputs
        yield from ((_SHARED, [at]) for at, op in enumerate(self.ops) if op.name == SEND)
        found: dict[Label, list[int]] = {_SHARED: []}
        for value, source in zip(main.outputs, self.program.updates, strict=True):
            name: Label = _SHARED
            if source is not None and ports[source].role in ("param", "state"):
                name = ports[source].of or ports[source].name
            at = self._made.get(value.id)
            if at is not None:
                found.setdefault(name, []).append(at)
        yield from ((name, wanted) for name, wanted in found.items() if wanted)

    def _leading_to(self, wanted: list[int], written: set[int]) -> set[int]:
        found: set[int] = set()
        open_ = list(wanted)
        while open_:
            at = open_.pop()
            if at not in found and at not in written:
                found.add(at)
                inputs = self.ops[at].inputs
                open_ += [self._made[value.id] for value in inputs if value.id in self._made]
        return found

    def _owners(self) -> dict[int, Label]:
        """The parameter that alone needs each op, or that several do."""
        owners: dict[int, Label] = {}

        def own(at: int, name: Label) -> None:
            owners[at] = name if owners.get(at, name) == name else _SHARED

        for name, wanted in self._goals():
            for at in wanted:
                own(at, name)
        for at in range(len(self.ops) - 1, -1, -1):
            for value in self.ops[at].inputs:
                if at in owners and value.id in self._made:
                    own(self._made[value.id], owners[at])
        return owners

    def _key(self, at: int, op: Op) -> Label:
        owner = self._owner.get(at, _SHARED)
        if owner is not _SHARED:
            return ("update", owner)
        names: set[Label] = {
            ("update", self._state[v.id]) for v in op.inputs if v.id in self._state
        }
        names |= {self._keys[self._made[v.id]] for v in op.inputs if v.id in self._made}
        names.discard(None)
        if len(names) == 1 and not op.name.startswith("fabric."):
            return names.pop()
        return ("shared", at) if any(map(_is_large, op.inputs)) else None


def _is_large(value: Value) -> bool:
    return isinstance(value.type, TensorType) and bool(value.type.shape)
