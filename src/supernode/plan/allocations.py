"""The order in which a program takes memory and gives it back: what an allocator is asked.

A request is a number: `n > 0` takes that many bytes, `-i` gives back what was taken as number `i`,
counted from 0.

A trainer that updates state in place keeps it where it is: what its optimizer makes of an operand
that dies is there beside it while the op runs, as `memory` counts it, and then takes its block.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from supernode.ir import CALL, Op, Program
from supernode.ops import is_view
from supernode.plan.memory import STATE, Early, run_walk, walk
from supernode.plan.storage import Callee, Callees, IsView, Segment, Storage, called

Requests = list[int]
NOTHING = -1
"""The number of what takes no memory, or was not taken yet."""


class _Deed(NamedTuple):
    """What an op takes, with sizes, and gives back, by the places of the storages in its block.

    What is taken for the first of a pair in `moves` is given back after the op, and is where the
    second was.
    """

    takes: tuple[tuple[int, int], ...]
    gives: tuple[int, ...]
    moves: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Routine:
    """A block walked one way: a place for each storage that takes memory, and the deed of each op.

    What is `dropped` is there at the start, and nothing reads it.
    """

    segment: Segment
    places: Mapping[Storage, int]
    dropped: tuple[int, ...]
    deeds: tuple[_Deed, ...]


def requests(
    program: Program,
    is_view: IsView = is_view,
    *,
    early: Iterable[Early] = (),
    known: dict[int, Callee] | None = None,
    beside: Sequence[int] = (),
) -> Iterator[Requests]:
    """What there is from the start, what lies `beside` first; then what each op asks, calls
    expanded: what it takes, then what is given back after it. Arguments as those of `memory`.

    What an `early` buffer takes is what its op would. So once op `i` has taken, as many bytes are
    taken as `memory(...).timeline[i]` says, with those beside.
    """
    walked, callees = walk(program, is_view, known=known)
    writer = _Writer(callees, early, in_place=True)
    yield from writer.step(writer.begin(walked, beside))
    yield writer.rest()


def job_requests(
    program: Program,
    is_view: IsView = is_view,
    *,
    early: Iterable[Early] = (),
    known: dict[int, Callee] | None = None,
    beside: Sequence[int] = (),
    workspace_bytes: int = 0,
) -> Iterator[Requests]:
    """The requests of a job's first steps, until each is like the one before: of two steps of
    training, else of one.

    In the first one the optimizer's state is taken where it is first read, all of it, as
    `torch.optim` does; the second takes what `requests` says. Each thread takes `workspace_bytes`
    where it begins: that of the step, and that which autograd starts for backward.
    """
    phases = [op.site.phase for op in program.main.ops]
    walked, callees = walk(program, is_view, known=known)
    writer = _Writer(callees, early, in_place=True)
    trains = "backward" in phases
    begun = writer.begin(walked, (*beside, workspace_bytes), makes_state=trains)
    if not trains:
        yield from writer.step(begun)
    else:
        start = phases.index("backward")
        yield from writer.step(begun, thread=(start, workspace_bytes))
        writer.next_step(begun, program)
        yield from writer.step(begun)
    yield writer.rest()


def run_requests(program: Program, *, beside: Sequence[int] = ()) -> Iterator[Requests]:
    """The same where `run` executes the program: with the next epoch, results and letters from the
    start, as `run_memory` counts them."""
    walked, callees = run_walk(program)
    writer = _Writer(callees, (), in_place=False)
    yield from writer.step(writer.begin(walked, beside))
    yield writer.rest()


@dataclass(slots=True)
class _Main:
    """The main block, the number of what is in each of its places, and the state yet to be made."""

    routine: _Routine
    held: list[int]
    unmade: dict[Storage, None]


class _Writer:
    def __init__(self, callees: Callees, early: Iterable[Early], *, in_place: bool) -> None:
        self._callees, self._in_place = callees, in_place
        self._line: Requests = []
        self._taken = self._at = 0
        self._routines: dict[int, _Routine] = {}
        self._begins: dict[int, list[Early]] = defaultdict(list)
        self._waiting: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for each in early:
            if each.first < each.last and each.size_bytes:
                self._begins[each.first].append(each)

    def begin(self, walked: Segment, beside: Sequence[int], *, makes_state: bool = False) -> _Main:
        """Takes what there is before the first step, less the state that the step makes."""
        for size_bytes in filter(None, beside):
            self._take(size_bytes)
        routine = self._routine(walked)
        main = _Main(routine, [NOTHING] * len(routine.places), {})
        for storage in walked.kept:
            if makes_state and storage.part == STATE and storage in routine.places:
                main.unmade[storage] = None
            else:
                self._hold(main, storage)
        return main

    def step(self, main: _Main, thread: tuple[int, int] | None = None) -> Iterator[Requests]:
        """A step; a `thread` begins with an op of the main block, and takes so much."""
        storage = main.routine.segment.storage
        for at, op in enumerate(main.routine.segment.block.ops):
            if thread is not None and thread[0] == at and thread[1]:
                yield self._next()
                self._take(thread[1])
            if main.unmade and any(storage[value.id] in main.unmade for value in op.inputs):
                yield self._next()
                self._make_state(main)
            if op.name == CALL:
                yield from self._call(main.routine, at, op, main.held)
            else:
                yield self._do(main.routine.deeds[at], main.held)
        self._make_state(main)

    def _make_state(self, main: _Main) -> None:
        for storage in main.unmade:
            self._hold(main, storage)
        main.unmade.clear()

    def next_step(self, main: _Main, program: Program) -> None:
        """Results are let go, and what was updated is what the next step reads."""
        storage, places = main.routine.segment.storage, main.routine.places
        found = [places.get(storage[value.id], NOTHING) for value in program.main.outputs]
        inputs = [places.get(storage[value.id], NOTHING) for value in program.main.inputs]
        numbers = [NOTHING if place == NOTHING else main.held[place] for place in found]
        pairs = list(zip(numbers, program.updates, strict=True))
        updated = {inputs[source]: number for number, source in pairs if source is not None}
        kept = {*updated.values(), *(main.held[place] for place in inputs if place != NOTHING)}
        gone = dict.fromkeys(number for number, source in pairs if source is None)
        self._line += [-number for number in gone if number not in (NOTHING, *kept)]
        for place, number in updated.items():
            if place != NOTHING:
                main.held[place] = number
        self._line += [-main.held[place] for place in main.routine.dropped if main.held[place] >= 0]
        self._at = 0

    def rest(self) -> Requests:
        """What was asked last."""
        return self._line

    def _hold(self, main: _Main, storage: Storage) -> None:
        if storage in main.routine.places:
            main.held[main.routine.places[storage]] = self._take(storage.size_bytes)

    def _next(self) -> Requests:
        done, self._line = self._line, []
        return done

    def _take(self, size_bytes: int) -> int:
        self._line.append(size_bytes)
        self._taken += 1
        return self._taken - 1

    def _do(self, deed: _Deed, held: list[int]) -> Requests:
        """Begins the line of the next op; what was asked until then is done."""
        takes, came = deed.takes, self._waiting.pop(self._at, [])
        if len(came) == len(takes) == 1 and came[0][1] == takes[0][1]:
            held[takes[0][0]], takes = came[0][0], ()
        else:
            self._line += [-number for number, _ in came]
        done = self._next()
        for each in self._begins.get(self._at, ()):
            number = self._take(each.size_bytes)
            self._waiting[each.last].append((number, each.size_bytes))
        for place, size_bytes in takes:
            held[place] = self._take(size_bytes)
        self._line += [-held[place] for place in deed.gives]
        for new, old in deed.moves:
            self._line.append(-held[new])
            held[new] = held[old]
        self._at += 1
        return done

    def _call(self, outer: _Routine, at: int, op: Op, held: list[int]) -> Iterator[Requests]:
        handed, segment = called(outer.segment, at, self._callees)
        inner = self._routine(segment)
        within = [NOTHING] * len(inner.places)
        kept: dict[int, bool] = {}
        for value, given, way in zip(segment.block.inputs, op.inputs, handed, strict=True):
            storage = segment.storage[value.id]
            if way is not None and storage in inner.places:
                place = outer.places[outer.segment.storage[given.id]]
                within[inner.places[storage]] = held[place]
                kept[place] = storage.held
        self._line += [-within[place] for place in inner.dropped]
        for deed in inner.deeds:
            yield self._do(deed, within)
        self._return(outer, at, op, inner, within, held)
        gives = outer.deeds[at].gives
        self._line += [-held[place] for place in gives if kept.get(place, True)]

    def _return(
        self,
        outer: _Routine,
        at: int,
        op: Op,
        inner: _Routine,
        within: list[int],
        held: list[int],
    ) -> None:
        """Results take their names outside; what was copied to its destination is given back."""
        fresh = {place for place, _ in outer.deeds[at].takes}
        mine, copied = set[int](), dict[int, None]()
        for value, given in zip(inner.segment.block.outputs, op.outputs, strict=True):
            storage = inner.segment.storage[value.id]
            if storage.made < 0 or storage not in inner.places:
                continue
            number = within[inner.places[storage]]
            place = outer.places.get(outer.segment.storage[given.id], NOTHING)
            if place in fresh:
                held[place] = number
                mine.add(number)
            else:
                copied[number] = None
        self._line += [-number for number in copied if number not in mine]

    def _routine(self, segment: Segment) -> _Routine:
        if id(segment) not in self._routines:  # whose id is its own: callees keep it
            self._routines[id(segment)] = _routine(segment, in_place=self._in_place)
        return self._routines[id(segment)]


def _routine(segment: Segment, *, in_place: bool) -> _Routine:
    known = dict.fromkeys(segment.at_start)
    for made in segment.made:
        known |= dict.fromkeys(made)
    places = {s: place for place, s in enumerate(s for s in known if s.size_bytes)}
    kept = set(segment.kept)
    dropped = tuple(places[s] for s in segment.at_start if s in places and s not in kept)
    deeds: list[_Deed] = []
    for at, op in enumerate(segment.block.ops):
        moves = in_place and op.site.phase == "optimizer" and op.name != CALL
        deeds.append(_deed(segment, at, op if moves else None, places))
    return _Routine(segment, places, dropped, tuple(deeds))


def _deed(segment: Segment, at: int, moving: Op | None, places: Mapping[Storage, int]) -> _Deed:
    """That of op `at`, which is `moving` if what it makes may take the block of an operand."""
    made = [storage for storage in segment.made[at] if storage in places]
    freed = [storage for storage in segment.freed[at] if storage in places]
    read = () if moving is None else [segment.storage[value.id] for value in moving.inputs]
    dying = [storage for storage in dict.fromkeys(read) if storage in freed]
    moves: list[tuple[int, int]] = []
    for new in made:
        old = next((each for each in dying if each.size_bytes == new.size_bytes), None)
        if old is not None and new not in freed:
            moves.append((places[new], places[old]))
            dying.remove(old)
            freed.remove(old)
    return _Deed(
        tuple((places[storage], storage.size_bytes) for storage in made),
        tuple(places[storage] for storage in freed),
        tuple(moves),
    )
