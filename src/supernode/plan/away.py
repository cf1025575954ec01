"""What lies in another place than the memory of its chip, and how much of it."""

from collections import Counter
from dataclasses import dataclass

from supernode.ir import FETCH, STORE, Block, Program, Value, elsewhere
from supernode.plan.inplace import destinations
from supernode.plan.liveness import last_uses

_ALIGN_BYTES = 64


def away_bytes(program: Program) -> dict[str, int]:
    """The most bytes of `program` that lie in each other place, of a trainer that updates state in
    place: an update takes the place of what it replaces."""
    main, places = program.main, elsewhere(program.main)
    updated = {main.inputs[source].id for source in program.updates if source is not None}
    kept = {value.id for value in main.outputs}
    kept |= {value.id for value in main.inputs if value.id not in updated}
    if not places:
        return {}
    last = _last_read(main)
    dying: dict[int, list[tuple[str, int]]] = {}
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()

    def begin(value: Value) -> None:
        place, size_bytes = places[value.id], value.type.size_bytes
        now[place] += size_bytes
        most[place] = max(most[place], now[place])
        if value.id not in kept:
            dying.setdefault(last[value.id], []).append((place, size_bytes))

    for value in main.inputs:
        if value.id in places:
            begin(value)
    for at, op in enumerate(main.ops):
        if op.name == STORE:
            begin(op.outputs[0])
        for place, size_bytes in dying.get(at, ()):
            now[place] -= size_bytes
    return dict(most)


def run_away_bytes(program: Program) -> dict[str, int]:
    """The bytes of `program` in each other place where `run` executes it: both epochs of the state
    that a step changes, and slots."""
    main, places = program.main, elsewhere(program.main)
    changed = {program.updates[position] for position in destinations(program)}
    found: Counter[str] = Counter()
    for i, value in enumerate(main.inputs):
        if value.id in places:
            found[places[value.id]] += value.type.size_bytes * (2 if i in changed else 1)
    slots = slots_of(program)
    if slots.place:
        found[slots.place] += slots.room_bytes
    return dict(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Where each value lies that a step stores and fetches again: by its id, the bytes before it
    and its own, in a room of `room_bytes` in `place`, which is empty where there is none."""

    place: str
    spans: dict[int, tuple[int, int]]
    room_bytes: int


def slots_of(program: Program) -> Slots:
    """The slots of `program`. Values of one size that are not there at one time share a slot: what
    is fetched from it is there before the next is stored."""
    main = program.main
    last = _last_read(main)
    given = {value.id for value in main.outputs}
    free: dict[int, list[int]] = {}
    ending: dict[int, list[tuple[int, int]]] = {}
    spans: dict[int, tuple[int, int]] = {}
    place, end = "", 0
    for at, op in enumerate(main.ops):
        if op.name == STORE and (value := op.outputs[0]).id not in given:
            place, size = str(op.args[1]), value.type.size_bytes
            known = free.setdefault(size, [])
            start = known.pop() if known else end
            end = max(end, start + size + -size % _ALIGN_BYTES)
            spans[value.id] = start, size
            ending.setdefault(last[value.id], []).append((size, start))
        for size, start in ending.get(at, ()):
            free[size].append(start)
    return Slots(place=place, spans=spans, room_bytes=end)


def _last_read(main: Block) -> dict[int, int]:
    """As `last_uses`; what is fetched is being read until an op reads the copy."""
    last = last_uses(main)
    copies: dict[int, int] = {}
    for at, op in enumerate(main.ops):
        for value in op.inputs:
            if (source := copies.pop(value.id, None)) is not None:
                last[source] = max(last[source], at)
        if op.name == FETCH:
            copies[op.outputs[0].id] = op.inputs[0].id
    return last
