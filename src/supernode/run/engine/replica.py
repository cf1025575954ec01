"""A worker's side of a loaded plan: this chip's memory, its generated code, its steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supernode.errors import ChipFailed
from supernode.ir import HostType, Value
from supernode.kernels import generate
from supernode.plan import AT_PEERS, ON_HOST, destinations, slots_of
from supernode.run.chips import ChipKind
from supernode.run.engine.letters import mailbox_of
from supernode.run.engine.messages import Load, Loaded, OpTimes
from supernode.run.engine.numbers import host_numbers
from supernode.run.engine.window import Arenas, Window, spot_of
from supernode.run.fabric import Fabric, HostRoom
from supernode.units import format_bytes

Number = Tensor | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Worksite:
    """What a worker process has: its kind of chip, the arenas, the links between the chips, its
    room on the host."""

    kind: ChipKind
    device: torch.device
    shared: Fabric
    links: Fabric
    node: Window
    room: HostRoom


class Replica:
    """One chip's part of a plan, ready to step."""

    def __init__(self, load: Load, site: Worksite) -> None:
        self._plan = load.plan
        self._site = site
        rank = site.shared.rank
        self._local = load.plan.local_of(rank)
        # The order of what takes memory is the same on all chips, so their arenas have one layout;
        # it comes first, for code that one chip alone fails to make.
        self._letters = mailbox_of(load.plan, site.links)
        self._epochs, self._homes = self._allocate_state()
        self._results = self._allocate_results()
        self._places = site.kind.carrier(self._allocate_slots())
        self._step = generate(
            self._local,
            fabric=site.links,
            letters=self._letters,
            places=self._places,
            mesh=load.plan.mesh.around(rank),
            rank=rank,
            device=str(site.device),
        )
        self._step.code(into=True, traced=False)
        self._most_bytes = load.memory_bytes
        self._sizes_vary = any(
            op.name in ("fabric.all_to_all_rows", "local.own_rows")
            for block in self._local.all_blocks()
            for op in block.ops
        )
        self._numbers = site.node.tensor(load.numbers)
        self._arguments = {
            i: self._piece(i, site.node.tensor(s)) for i, s in load.arguments.items()
        }
        self._by_epoch = [self._state_inputs(epoch) for epoch in (0, 1)]
        self._into_epoch = [self._state_outputs(epoch) for epoch in (0, 1)]
        self._host = [
            (i, value.type.dtype)
            for i, value in enumerate(self._local.main.inputs)
            if isinstance(value.type, HostType)
        ]

    def loaded(self) -> Loaded:
        """Where everything lies, for the node."""
        return Loaded(
            state={
                i: tuple(spot_of(home, self._arena(self._place(i))) for home in homes)
                for i, homes in self._homes.items()
            },
            results={i: spot_of(result, self._arena("")) for i, result in self._results.items()},
        )

    def step(self, number: int, epoch: int) -> None:
        """Reads the state of `epoch` and writes that of the next one.

        `number` is that of the command, by which the chips know this step's letters.
        """
        self._letters.begin(number)
        self._places.begin()
        if self._most_bytes is not None:
            self._watched_step(epoch, self._most_bytes)
            return
        self._publish(self._step(self._inputs(epoch), self._into_epoch[(epoch + 1) % 2]))

    def _watched_step(self, epoch: int, most_bytes: float) -> None:
        """A step that fails if this chip holds more than it may; later ones hold as much, unless
        the data decides how much that is."""
        with self._site.kind.memory_watch() as watch:
            inputs = self._inputs(epoch)
            held_bytes = self._resident_bytes(inputs)
            outputs = self._step(inputs, self._into_epoch[(epoch + 1) % 2])
            self._site.kind.synchronize()
            watch.mark()
        held_bytes += max(watch.peaks)
        if held_bytes > most_bytes:
            raise ChipFailed(
                f"it held {format_bytes(held_bytes)} of its memory, "
                f"{format_bytes(most_bytes)} are allowed",
                fix="allow more, recompute=full, offload=all, or more chips",
            )
        if not self._sizes_vary:
            self._most_bytes = None
        self._publish(outputs)

    def traced_step(self, number: int, epoch: int) -> OpTimes:
        """A step that notes when each op ran."""
        self._letters.begin(number)
        self._places.begin()
        times_ns = self._timed(self._inputs(epoch), epoch)
        return OpTimes(times_ns=times_ns)

    def traced_memory(self, number: int, epoch: int) -> OpTimes:
        """A step that notes when each op ran, and the memory in use meanwhile."""
        self._letters.begin(number)
        self._places.begin()
        watch = self._site.kind.memory_watch()

        def after_op() -> None:
            self._site.kind.synchronize()
            watch.mark()

        with watch:
            inputs = self._inputs(epoch)
            resident_bytes = self._resident_bytes(inputs)
            times_ns = self._timed(inputs, epoch, after_op)
        memory_bytes = tuple(resident_bytes + peak for peak in watch.peaks)
        return OpTimes(times_ns=times_ns, memory_bytes=memory_bytes)

    def _timed(
        self, inputs: list[Number], epoch: int, after_op: Callable[[], None] | None = None
    ) -> tuple[tuple[int, int], ...]:
        into, clock = self._into_epoch[(epoch + 1) % 2], self._site.kind.clock()
        outputs, spans = self._step.traced(inputs, into, clock, after_op)
        self._publish(outputs)
        return tuple((span.start_ns, span.end_ns) for span in spans)

    def _resident_bytes(self, inputs: list[Number]) -> int:
        """What is there before and after a step: state, results, letters, arguments in place, and
        what another chip keeps here."""
        held = [
            *self._results.values(),
            *(each for i, homes in self._epochs.items() if not self._place(i) for each in homes),
        ]
        for i, piece in self._arguments.items():
            given = inputs[i]
            assert isinstance(given, Tensor)
            if given.data_ptr() == piece.data_ptr():
                held.append(given)
        lent_bytes = self._plan.lent_bytes(self._site.shared.rank)
        return self._letters.room_bytes + lent_bytes + sum(tensor.nbytes for tensor in held)

    def save(self, epoch: int) -> None:
        """Copies the state of an epoch to its homes in the arena."""
        for i, homes in self._homes.items():
            homes[epoch % len(homes)].copy_(self._at(i, epoch))
        self._site.kind.synchronize()

    def restore(self, epoch: int) -> None:
        """The reverse of `save`."""
        for i, homes in self._homes.items():
            self._at(i, epoch).copy_(homes[epoch % len(homes)])
        self._site.kind.synchronize()

    def _piece(self, i: int, whole: Tensor) -> Tensor:
        layout = self._plan.inputs[i]
        assert layout is not None
        mesh, rank = self._plan.mesh, self._site.shared.rank
        return whole[layout.slices(tuple(whole.shape), mesh, rank)]

    def _allocate_state(
        self,
    ) -> tuple[dict[int, tuple[Tensor, ...]], dict[int, tuple[Tensor, ...]]]:
        local, programs = self._local, self._plan.programs
        changed = {
            program.updates[position] for program in programs for position in destinations(program)
        }
        epochs: dict[int, tuple[Tensor, ...]] = {}
        homes: dict[int, tuple[Tensor, ...]] = {}
        kind = self._site.kind
        # Where state is in the arena, all of it is on the host.
        numbers = frozenset[int]() if kind.state_in_arena else host_numbers(local)
        for i, (port, value) in enumerate(zip(local.inputs, local.main.inputs, strict=True)):
            if isinstance(value.type, HostType) or port.role == "arg":
                continue
            alike = [program.main.inputs[i] for program in programs]
            count = 2 if i in changed else 1
            place = self._place(i)
            if place:
                homes[i] = tuple(self._empty(value, alike, place) for _ in range(count))
                epochs[i] = homes[i]
                continue
            homes[i] = tuple(
                self._empty(value, alike) for _ in range(count if kind.state_in_arena else 1)
            )
            memory = torch.empty_like if i in numbers else kind.state
            epochs[i] = tuple(memory(homes[i][n % len(homes[i])]) for n in range(count))
        return epochs, homes

    def _place(self, i: int) -> str:
        """Where input `i` lives."""
        layout = self._plan.inputs[i]
        assert layout is not None
        return layout.place

    def _arena(self, place: str) -> int:
        """The number of the arena in which what lives in a place lies."""
        rank, chips = self._site.shared.rank, self._plan.mesh.size
        numbers = {"": rank, AT_PEERS: chips - 1 - rank, ON_HOST: Arenas(chips).host(rank)}
        return numbers[place]

    def _allocate_slots(self) -> dict[int, Tensor]:
        """Bytes for what a step stores and fetches again, by the id of the value."""
        found = [slots_of(program) for program in self._plan.programs]
        place = next((slots.place for slots in found if slots.place), "")
        size = max(slots.room_bytes for slots in found)
        if not size:
            return {}
        room = self._away((size,), torch.uint8, place)
        spans = slots_of(self._local).spans.items()
        return {key: room[start : start + size] for key, (start, size) in spans}

    def _away(self, shape: tuple[int, ...], dtype: torch.dtype, place: str) -> Tensor:
        """Memory in another place; room for the largest of any chip, for arenas alike."""
        if place == ON_HOST:
            return self._site.kind.pinned(self._site.room.empty(shape, dtype))
        shared = self._site.shared
        return shared.peer(shared.empty(shape, dtype, used_bytes=0), self._arena(place))

    def _allocate_results(self) -> dict[int, Tensor]:
        local, programs = self._local, self._plan.programs
        results: dict[int, Tensor] = {}
        for i, value in enumerate(local.main.outputs):
            if isinstance(value.type, HostType):
                results[i] = self._site.shared.empty((), torch.float64)
            elif local.updates[i] is None:
                results[i] = self._empty(value, [each.main.outputs[i] for each in programs])
        return results

    def _empty(self, value: Value, alike: Sequence[Value], place: str = "") -> Tensor:
        """Memory for a piece, in the own arena or a place; room for the largest of any chip, for
        arenas alike."""
        shape, dtype = value.tensor.shape, getattr(torch, value.tensor.dtype)
        count, most = math.prod(shape), max(math.prod(each.tensor.shape) for each in alike)
        if place:
            return self._away((most,), dtype, place)[:count].view(shape)
        used_bytes = count * dtype.itemsize
        return self._site.shared.empty((most,), dtype, used_bytes=used_bytes)[:count].view(shape)

    def _at(self, i: int, epoch: int) -> Tensor:
        return self._epochs[i][epoch % len(self._epochs[i])]

    def _inputs(self, epoch: int) -> list[Number]:
        """The inputs of a step; state is in its place, arguments and numbers are new each time."""
        inputs = self._by_epoch[epoch % 2].copy()
        for i, piece in self._arguments.items():
            # On a processor a contiguous piece is read where the node wrote it.
            inputs[i] = piece.to(self._site.device).contiguous()
        for (i, kind), number in zip(self._host, self._numbers.tolist(), strict=False):
            inputs[i] = int(number) if kind.startswith("int") else number
        return inputs

    def _state_inputs(self, epoch: int) -> list[Number]:
        count = len(self._local.inputs)
        return [self._at(i, epoch) if i in self._epochs else 0.0 for i in range(count)]

    def _state_outputs(self, epoch: int) -> list[Tensor | None]:
        local = self._local
        out: list[Tensor | None] = [None] * len(local.outputs)
        for position in self._step.destinations:
            source = local.updates[position]
            assert source is not None
            out[position] = self._at(source, epoch)
        return out

    def _publish(self, outputs: tuple[Number, ...]) -> None:
        for i, result in self._results.items():
            value = outputs[i]
            result.copy_(value) if isinstance(value, Tensor) else result.fill_(value)
        self._site.kind.synchronize()
