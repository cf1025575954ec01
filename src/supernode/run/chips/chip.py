"""What a kind of chip must say of itself; one file for each kind."""

from collections.abc import Mapping
from typing import Protocol, Self

import torch
from torch import Tensor

from supernode.kernels import Clock, Places
from supernode.run.fabric import Fabric


class MemoryWatch(Protocol):
    """What a chip's allocator hands out while it is watched, in bytes above what it had before.

    It watches in a `with`; `peaks` are known after that.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def mark(self) -> None:
        """Ends one span, between two marks, and begins the next."""
        ...

    @property
    def peaks(self) -> list[int]:
        """The most that was handed out in each span that was ended."""
        ...


class Carrying(Places, Protocol):
    """What carries values between a chip and the places where they live."""

    def begin(self) -> None:
        """Before a step: nothing is left of one that failed."""
        ...


class ChipKind(Protocol):
    """A kind of chip: how many there are, and how one worker process makes one ready."""

    name: str
    state_in_arena: bool
    """Whether a node can read the state of a chip whose process has died."""

    def count(self) -> int:
        """How many this host has."""
        ...

    def check(self, chips: int) -> None:
        """Raises `InputError` if this host can't have `chips` of them."""
        ...

    def environment(self, chips: int) -> dict[str, str]:
        """What a worker's environment must hold before its libraries load."""
        ...

    def prepare(self, rank: int, chips: int) -> torch.device:
        """Makes this process the chip `rank` of `chips`; gives its device."""
        ...

    def links(self, shared: Fabric, chips: int) -> Fabric:
        """The collectives between the chips; `shared` are the host's arenas."""
        ...

    def state(self, home: Tensor) -> Tensor:
        """Memory on this chip for a piece of state whose place in the arena is `home`."""
        ...

    def pinned(self, room: Tensor) -> Tensor:
        """Memory of the host that values live in, made ready to be copied beside a step."""
        ...

    def carrier(self, slots: Mapping[int, Tensor]) -> Carrying:
        """What carries values; `slots` are bytes on the host for those a step makes, by key."""
        ...

    def synchronize(self) -> None:
        """Returns when the chip has done what it was given."""
        ...

    def clock(self) -> Clock:
        """Notes when ops are done, without waiting for them."""
        ...

    def memory_watch(self) -> MemoryWatch:
        """Watches the memory of this chip."""
        ...
