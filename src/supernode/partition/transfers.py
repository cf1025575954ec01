"""Fetches and stores written into a main: which values are moved, and in which unit each begins."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from supernode.ir import (
    CALL,
    FETCH,
    RECEIVE,
    STORE,
    WAIT,
    Block,
    NewValues,
    Op,
    Phase,
    Program,
    Site,
    Value,
    renamed,
)
from supernode.ops import is_view
from supernode.partition.update_order import Label, near, numbered

NEAR = 2
"""So many units apart, a value stays on its chip: it would hardly be gone before it comes again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """What is moved to `place`: some inputs of the program, and values made in some phases, of
    those with the ids in `large`."""

    place: str
    inputs: frozenset[int]
    made_in: frozenset[Phase]
    large: Collection[int]


def with_transfers(program: Program, labels: Sequence[Label], away: Away) -> Program:
    """`program` with what is away fetched for its readers and stored; results are unchanged.

    Ops with one label that follow each other are a unit. A fetch begins a unit before its readers,
    a store is waited for a unit behind its value's maker.
    """
    return _Transfers(program, labels, away).program()


@dataclass(slots=True)
class _Unit:
    """The ops of a unit, what is fetched before them, and what is stored and waited for after."""

    ops: list[Op] = field(default_factory=list[Op])
    fetched: list[Op] = field(default_factory=list[Op])
    stored: list[Op] = field(default_factory=list[Op])
    waited: list[Op] = field(default_factory=list[Op])


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy of a value that serves the units from `first` through `last`."""

    first: int
    last: int
    value: Value


class _Transfers:
    def __init__(self, program: Program, labels: Sequence[Label], away: Away) -> None:
        self.source, self.away = program, away
        self.main = program.main
        self.unit_of = numbered(labels)
        self.units = [_Unit() for _ in range(1 + max(self.unit_of, default=0))]
        self.distance = dict(zip(self.unit_of, near(labels), strict=True))
        self.new = NewValues.of(self.main)
        self.made = {v.id: at for at, op in enumerate(self.main.ops) for v in op.outputs}
        self.reads: dict[int, list[int]] = defaultdict(list)
        for at, op in enumerate(self.main.ops):
            for value in op.inputs:
                self.reads[value.id].append(at)
        self.given = {value.id for value in self.main.outputs}
        self.copies: dict[int, list[_Copy]] = {}

    def program(self) -> Program:
        outputs = self._updates()
        self._inputs()
        self._made()
        for op, unit in zip(self.main.ops, self.unit_of, strict=True):
            stands = {value.id: self._copy(value, unit) for value in op.inputs}
            self.units[unit].ops.append(renamed(op, stands))
        ops = [
            op
            for unit in self.units
            for part in (unit.fetched, unit.ops, unit.stored, unit.waited)
            for op in part
        ]
        main = replace(self.main, ops=tuple(ops), outputs=outputs)
        return replace(self.source, main=main)

    def _copy(self, value: Value, unit: int) -> Value:
        found = (c.value for c in self.copies.get(value.id, ()) if c.first <= unit <= c.last)
        return next(found, value)

    def _updates(self) -> tuple[Value, ...]:
        """The outputs of main, with the next value of what is away stored."""
        outputs: list[Value] = []
        for out, source in zip(self.main.outputs, self.source.updates, strict=True):
            if source in self.away.inputs and out != self.main.inputs[source]:
                assert out.id in self.made, f"{out} becomes another input, which is away"
                unit = self.unit_of[self.made[out.id]]
                out = self._store(out, unit, unit)
            outputs.append(out)
        return tuple(outputs)

    def _inputs(self) -> None:
        for i, value in enumerate(self.main.inputs):
            if i in self.away.inputs:
                for stretch in self._stretches(self.reads[value.id]):
                    self._fetch(value, value, stretch)

    def _made(self) -> None:
        """Values that are not read for long are stored meanwhile, if that frees their memory."""
        roots = Roots(self.main, {block.name: block for block in self.source.blocks})
        for members in roots.groups():
            maker = self.main.ops[self.made[members[0].id]]
            if maker.name == RECEIVE or maker.site.phase not in self.away.made_in:
                continue
            places = [self.made[value.id] for value in members]
            reads = [at for value in members for at in self.reads[value.id]]
            first, *later = self._stretches([*places, *reads])
            ends = {value.id: self._end(value, (first, *later)) for value in members}
            kept = [value for value in members if self._is_read_after(value, ends[value.id])]
            if all(ends[v.id] == first[1] and roots.is_whole(v) for v in kept) and not any(
                value.id in self.given or value.id not in self.away.large for value in kept
            ):
                for value in kept:
                    self._spill(value, first[1], later)

    def _end(self, value: Value, stretches: Iterable[tuple[int, int]]) -> int:
        """The last unit of the stretch in which a value is made."""
        unit = self.unit_of[self.made[value.id]]
        return next(last for first, last in stretches if first <= unit <= last)

    def _is_read_after(self, value: Value, unit: int) -> bool:
        return any(self.unit_of[at] > unit for at in self.reads[value.id])

    def _spill(self, value: Value, until: int, later: Iterable[tuple[int, int]]) -> None:
        stored = self._store(value, self.unit_of[self.made[value.id]], until)
        for first, last in later:
            read = [u for at in self.reads[value.id] if first <= (u := self.unit_of[at]) <= last]
            if read:
                self._fetch(value, stored, (min(read), max(read)))

    def _stretches(self, accesses: Iterable[int]) -> list[tuple[int, int]]:
        """Where ops at these places keep a copy: units so near that a transfer brings nothing."""
        found: list[tuple[int, int]] = []
        for unit in sorted({self.unit_of[at] for at in accesses}):
            if found and self.distance[unit] - self.distance[found[-1][1]] <= NEAR:
                found[-1] = (found[-1][0], unit)
            else:
                found.append((unit, unit))
        return found

    def _fetch(self, value: Value, source: Value, stretch: tuple[int, int]) -> None:
        first, last = stretch
        (out,) = self.new.like((value,))
        begun = self.units[max(first - 1, 0)]
        site = self._site(value, first)
        args = (source, self.away.place)
        begun.fetched.append(Op(name=FETCH, args=args, outputs=(out,), site=site))
        self.copies.setdefault(value.id, []).append(_Copy(first, last, out))

    def _site(self, value: Value, unit: int) -> Site:
        """That of the first op of a unit that reads a value."""
        at = next(at for at in self.reads[value.id] if self.unit_of[at] >= unit)
        return self.main.ops[at].site

    def _store(self, value: Value, unit: int, until: int) -> Value:
        """Stores a value behind the unit that makes it; it is read on the chip `until` a unit."""
        (out,) = self.new.like((value,))
        site = self.main.ops[self.made[value.id]].site
        args = (value, self.away.place)
        self.units[unit].stored.append(Op(name=STORE, args=args, outputs=(out,), site=site))
        free = min(max(unit + 1, until), len(self.units) - 1)
        self.units[free].waited.append(Op(name=WAIT, args=(value, out), outputs=(), site=site))
        return out


class Roots:
    """Which values of a main share memory, and which show all of it."""

    def __init__(self, main: Block, blocks: Mapping[str, Block]) -> None:
        self._root: dict[int, int] = {value.id: value.id for value in main.inputs}
        self._whole = dict.fromkeys(self._root, True)
        self._inputs = set(self._root)
        self._members: dict[int, list[Value]] = defaultdict(list)
        callees = {name: _shared(block) for name, block in blocks.items()}
        for op in main.ops:
            if op.name == CALL:
                self._call(op, callees[op.block])
            else:
                for value in op.outputs:
                    self._define(value, _base(op))

    def groups(self) -> Iterable[list[Value]]:
        """The values that share memory, in the order in which they are made; not the inputs'."""
        return (found for root, found in self._members.items() if root not in self._inputs)

    def root(self, value: Value) -> int:
        """The id of the value that made its memory."""
        return self._root[value.id]

    def is_whole(self, value: Value) -> bool:
        """Whether it shows each element of its memory once."""
        return self._whole[value.id]

    def _define(self, value: Value, base: Value | None, whole: bool = True) -> None:
        root = value.id if base is None else self._root[base.id]
        same = base is None or (
            self._whole[base.id] and base.type.size_bytes == value.type.size_bytes
        )
        self._root[value.id] = root
        self._whole[value.id] = same and whole
        self._members[root].append(value)

    def _call(self, op: Op, shared: Sequence[tuple[int | None, int, bool]]) -> None:
        for value, (source, first, whole) in zip(op.outputs, shared, strict=True):
            if source is not None:
                self._define(value, op.inputs[source], whole)
            elif op.outputs[first] != value:
                self._define(value, op.outputs[first], whole)
            else:
                self._define(value, None, whole)


def _base(op: Op) -> Value | None:
    return op.inputs[0] if op.inputs and is_view(op) else None


def _shared(block: Block) -> list[tuple[int | None, int, bool]]:
    """For each output the input it shares memory with, else the first output that it does so
    with; and whether it shows all of that memory."""
    roots = Roots(block, {})
    place = {value.id: i for i, value in enumerate(block.inputs)}
    root = [roots.root(value) for value in block.outputs]
    return [
        (place.get(root[i]), root.index(root[i]), roots.is_whole(value))
        for i, value in enumerate(block.outputs)
    ]
