"""When transfers begin and are waited for: as far from what reads them as memory allows.

While an op runs, what lies on the chip ahead of its readers, or is not yet taken away, has the room
that the op leaves below a limit. A fetch is worth less the longer a store is waited for, and the
other way round, so that fetches get half of the room, then waits what they can use, then fetches
the rest.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from supernode.ir import CALL, FETCH, WAIT, Block, Program
from supernode.plan import Plan


def spaced(plan: Plan) -> Plan:
    """`plan` with fetches begun as early, and stores waited for as late, as memory allows.

    No chip needs more than the fullest one did. Which transfers come after which is as it was,
    each way, and so are results.
    """
    rooms = _rooms(plan)
    orders: dict[int, list[int]] = {}
    programs: list[Program] = []
    for rank, program in zip(plan.kinds(), plan.programs, strict=True):
        largest = plan.largest_kind(rank)
        if largest not in orders:
            orders[largest] = _Spacing(plan.programs[largest].main, rooms[largest]).order()
        ops = tuple(program.main.ops[at] for at in orders[largest])
        programs.append(replace(program, main=replace(program.main, ops=ops)))
    return replace(plan, local=programs[0], variants=tuple(programs[1:]))


def _rooms(plan: Plan) -> list[list[int]]:
    """The bytes left on each kind of chip while each op of main runs: of what `run` needs, and of
    what a trainer needs that updates in place, the fewer."""
    found: list[list[int]] = []
    for in_place in (False, True):
        memory = plan.memory(in_place=in_place)
        rooms = [
            [memory.peak_bytes - used for used in _by_op(program, use.timeline)]
            for program, use in zip(plan.programs, memory.chips.values(), strict=True)
        ]
        found = [list(map(min, *pair)) for pair in zip(found or rooms, rooms, strict=True)]
    return found


def _by_op(program: Program, timeline: Sequence[int]) -> list[int]:
    """The most that is used while each op of main runs, of what is used with calls expanded."""
    lengths = {block.name: len(block.ops) for block in program.blocks}
    used: list[int] = []
    first = 0
    for op in program.main.ops:
        last = first + (lengths[op.block] if op.name == CALL else 1)
        used.append(max(timeline[first:last], default=0))
        first = last
    return used


class _Spacing:
    """Where each fetch begins and each wait ends: before which op of main, or behind all."""

    def __init__(self, main: Block, room: Sequence[int]) -> None:
        self._ops, self._room = main.ops, list(room)
        self._fetches = [at for at, op in enumerate(self._ops) if op.name == FETCH]
        self._waits = [at for at, op in enumerate(self._ops) if op.name == WAIT]
        self._place = {at: at for at in (*self._fetches, *self._waits)}

    def order(self) -> list[int]:
        """The ops of main, by where they stand in it."""
        self._fetch_earlier([size // 2 for size in self._room])
        self._wait_later()
        self._fetch_earlier(self._room)
        moved: dict[int, list[int]] = defaultdict(list)
        for at in (*self._waits, *self._fetches):
            moved[self._place[at]].append(at)
        order: list[int] = []
        for at in range(len(self._ops)):
            order += moved[at]
            order += () if at in self._place else (at,)
        return order + moved[len(self._ops)]

    def _fetch_earlier(self, room: Sequence[int]) -> None:
        """What is read next is there, as much of it as there is room for; what is stored in this
        step can't be before that is done, nor what is fetched after it."""
        stored = {self._ops[at].inputs[1].id: self._place[at] for at in self._waits}
        bounds: dict[int, int] = {}
        bound = 0
        for at in self._fetches:
            bound = max(bound, stored.get(self._ops[at].inputs[0].id, 0))
            bounds[at] = bound
        self._move(self._fetches[::-1], bounds, room, back=True)

    def _wait_later(self) -> None:
        """What was stored last is there still, as much of it as there is room for."""
        fetched = {self._ops[at].inputs[0].id: self._place[at] for at in self._fetches[::-1]}
        bounds: dict[int, int] = {}
        bound = len(self._ops)
        for at in self._waits[::-1]:
            bound = min(bound, fetched.get(self._ops[at].inputs[1].id, bound))
            bounds[at] = bound
        self._move(self._waits, bounds, self._room, back=False)

    def _move(
        self,
        transfers: Sequence[int],
        bounds: Mapping[int, int],
        room: Sequence[int],
        *,
        back: bool,
    ) -> None:
        """Moves transfers over main, `back` or on, each up to its bound, past ops that leave room
        for all that is on its way; where one leaves less, the first on its way stay."""
        from_here: dict[int, list[int]] = defaultdict(list)
        for at in transfers:
            from_here[self._place[at]].append(at)
        moving: deque[int] = deque()
        size_bytes = 0
        for op in range(len(self._ops))[:: -1 if back else 1]:
            place = op + 1 if back else op
            moving += from_here[place]
            size_bytes += sum(map(self._size_bytes, from_here[place]))
            while moving and (size_bytes > room[op] or bounds[moving[0]] == place):
                at = moving.popleft()
                self._place[at] = place
                size_bytes -= self._size_bytes(at)
            self._room[op] -= size_bytes
        self._place |= dict.fromkeys(moving, 0 if back else len(self._ops))

    def _size_bytes(self, at: int) -> int:
        op = self._ops[at]
        value = op.outputs[0] if op.name == FETCH else op.inputs[0]
        return value.type.size_bytes
