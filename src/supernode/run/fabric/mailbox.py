"""Tensors from stage to stage of a pipeline: in the arenas of one host, or by torch.distributed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from supernode.errors import ChipFailed, InputError
from supernode.run.fabric.interface import Fabric, Group, Letter, Mailbox

_ALIGN_BYTES = 64
_FIRST_SLOT = 1
"""Slot 0 of a chip is its doorbell; the next ones are for what each member of a group has sent."""

_STEP_SHIFT = 32
"""A slot holds the number of the step above as many bits, and below them how many letters came."""

_Name = tuple[int, int, int]
"""Source, target and key of a letter."""

T = TypeVar("T")


class ArenaMailbox(Mailbox):
    """Each letter has a place of its own in the arena of its target, so nobody waits to send; parts
    of one piece come to lie side by side.

    A sender counts its letters in a slot of the target; a letter is there when the count has
    reached its own number. The counts of a step are larger than those of all before it.
    """

    def __init__(self, fabric: Fabric, letters: Sequence[Letter], group: Group) -> None:
        self._fabric, self._rank = fabric, fabric.rank
        self._slots = {rank: _FIRST_SLOT + i for i, rank in enumerate(group)}
        self._numbers = _numbers(letters)
        self._step = 0
        starts, sizes = _starts(letters)
        room, self.room_bytes = max(sizes.values(), default=0), sizes[self._rank]
        inbox = fabric.empty((room,), torch.uint8, used_bytes=self.room_bytes)
        self._pieces: dict[tuple[int, int], Tensor] = {}
        self._places: dict[_Name, Tensor] = {}
        for letter, start in zip(letters, starts, strict=True):
            if self._rank in (letter.source, letter.target):
                flat = inbox[start : start + _size_bytes(letter)]
                piece = flat.view(letter.dtype).view(_piece(letter))
                self._pieces[letter.target, letter.key] = piece
                self._places[_name(letter)] = piece if letter.piece is None else piece[letter.box]

    def begin(self, number: int) -> None:
        self._step = number << _STEP_SHIFT

    def send(self, x: Tensor, rank: int, key: int) -> None:
        name = (self._rank, rank, key)
        place = _announced(self._places, name)
        if x.shape != place.shape or x.dtype != place.dtype:
            raise InputError(
                f"letter {key} is {x.dtype}{list(x.shape)}, "
                f"announced as {place.dtype}{list(place.shape)}"
            )
        self._fabric.put(x, place, rank)
        self._fabric.signal(rank, self._slots[self._rank], self._step + self._numbers[name])

    def receive(self, rank: int, key: int) -> Tensor:
        name = (rank, self._rank, key)
        place = _announced(self._places, name)
        try:
            self._fabric.wait(self._slots[rank], self._step + self._numbers[name])
        except ChipFailed as error:
            error.asked = f"letter {key} from rank {rank}"  # a slot tells a user nothing
            raise
        return place

    def receive_piece(self, ranks: Sequence[int], key: int) -> Tensor:
        for rank in ranks:
            self.receive(rank, key)
        return self._pieces[self._rank, key]


class DistributedMailbox(Mailbox):
    """Letters by `isend` and `irecv`, which match in order; each direction has its own group.

    With one group for both directions NCCL would keep them in one line, where a send and the
    other's send wait for each other. A letter takes memory from when it is asked for.
    """

    room_bytes = 0

    def __init__(self, letters: Sequence[Letter], rank: int, device: str) -> None:
        self._rank, self._device = rank, device
        self._numbers = _numbers(letters)
        self._groups = {
            pair: _pair_group(pair)
            for pair in sorted({(letter.source, letter.target) for letter in letters})
            if rank in pair
        }
        self._inbox: dict[int, list[Letter]] = {}
        for letter in letters:
            if letter.target == rank:
                self._inbox.setdefault(letter.source, []).append(letter)
        self._asked = Counter[int]()
        self._outgoing: list[tuple[dist.Work, Tensor]] = []
        self._incoming: dict[_Name, tuple[dist.Work, Tensor]] = {}

    def begin(self, number: int) -> None:
        for work, _ in self._outgoing:
            work.wait()
        self._outgoing = []
        self._asked.clear()

    def send(self, x: Tensor, rank: int, key: int) -> None:
        _announced(self._numbers, (self._rank, rank, key))
        copy = x.detach().clone(memory_format=torch.contiguous_format)
        work = dist.isend(copy, rank, self._groups[self._rank, rank])
        assert work is not None
        self._outgoing = [each for each in self._outgoing if not each[0].is_completed()]
        self._outgoing.append((work, copy))

    def receive(self, rank: int, key: int) -> Tensor:
        name = (rank, self._rank, key)
        number = _announced(self._numbers, name)
        for letter in self._inbox[rank][self._asked[rank] : number]:
            out = torch.empty(letter.shape, dtype=letter.dtype, device=self._device)
            work = dist.irecv(out, rank, self._groups[rank, self._rank])
            assert work is not None
            self._incoming[_name(letter)] = work, out
        self._asked[rank] = max(self._asked[rank], number)
        work, out = self._incoming.pop(name)
        work.wait()
        return out

    def receive_piece(self, ranks: Sequence[int], key: int) -> Tensor:
        letters = [
            next(letter for letter in self._inbox[rank] if letter.key == key) for rank in ranks
        ]
        first = letters[0]
        if first.piece is None:
            return self.receive(first.source, key)
        piece = torch.empty(_piece(first), dtype=first.dtype, device=self._device)
        for letter in letters:
            piece[letter.box] = self.receive(letter.source, key)
        return piece


def _pair_group(pair: tuple[int, int]) -> dist.ProcessGroup:
    made = dist.new_group(list(pair), use_local_synchronization=True)
    assert isinstance(made, dist.ProcessGroup)
    return made


def _name(letter: Letter) -> _Name:
    return letter.source, letter.target, letter.key


def _numbers(letters: Sequence[Letter]) -> dict[_Name, int]:
    """Which of all letters from its source to its target each is, from 1 on."""
    counts = Counter[tuple[int, int]]()
    numbers: dict[_Name, int] = {}
    for letter in letters:
        counts[letter.source, letter.target] += 1
        numbers[_name(letter)] = counts[letter.source, letter.target]
    return numbers


def _starts(letters: Sequence[Letter]) -> tuple[list[int], Counter[int]]:
    """Where in the inbox of its target each letter, or the piece it is a part of, begins; and how
    large the inboxes are."""
    sizes = Counter[int]()
    pieces: dict[tuple[int, int], int] = {}
    starts: list[int] = []
    for letter in letters:
        start, name = sizes[letter.target], (letter.target, letter.key)
        if letter.piece is not None:
            start = pieces.setdefault(name, start)
        starts.append(start)
        if start == sizes[letter.target]:
            size = _size_bytes(letter)
            sizes[letter.target] += size + -size % _ALIGN_BYTES
    return starts, sizes


def _piece(letter: Letter) -> tuple[int, ...]:
    return letter.shape if letter.piece is None else letter.piece


def _size_bytes(letter: Letter) -> int:
    return math.prod(_piece(letter)) * letter.dtype.itemsize


def _announced(known: Mapping[_Name, T], name: _Name) -> T:
    if name not in known:
        source, target, key = name
        raise InputError(
            f"no letter {key} from rank {source} to rank {target} was announced",
            fix="name it when the mailbox is made",
        )
    return known[name]
