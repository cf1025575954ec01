"""What torch's caching allocator for GPUs makes of an order of requests.

Sizes are rounded up to 512 B. Requests of up to 1 MiB come from a pool of segments of 2 MiB, larger
ones from another pool: below 10 MiB from segments of 20 MiB, else from one of the size, rounded up
to 2 MiB. The smallest free block of the pool that is large enough serves, of equal ones that at the
lowest address. What is left of it becomes a free block where that is at least 512 B, in the pool of
larger requests more than 1 MiB. A block given back merges with the free ones beside it. Segments
are kept; where a new one is more than the device has, all that are wholly free are given back to
it first.

**Source:** the behaviour of `c10/cuda/CUDACachingAllocator.cpp` of PyTorch 2, with its defaults, on
one stream; for requests recorded on a GPU it reserves what torch did (`tests/plan/recorded`).
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from supernode.units import MIB

GRAIN = 512
SMALL = MIB
SMALL_SEGMENT = 2 * MIB
MIDDLE = 10 * MIB
MIDDLE_SEGMENT = 20 * MIB
LARGE_GRAIN = 2 * MIB

_SHIFT = 64  # free blocks are sorted by size, then by address: as size << _SHIFT | address
_ADDRESS = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """The most bytes that were in blocks handed out, and in segments; `fits` says whether every
    request was served. Where not, both are those up to the one that was not."""

    allocated_bytes: int
    reserved_bytes: int
    fits: bool


class Block:
    """Bytes of a segment, handed out or free, between those `before` and `after` it there."""

    __slots__ = ("after", "at", "before", "free", "pool", "size")

    def __init__(self, pool: "_Pool", at: int, size: int) -> None:
        self.pool, self.at, self.size = pool, at, size
        self.free = False
        self.before: Block | None = None
        self.after: Block | None = None


class _Pool:
    """The free blocks of one pool: sorted keys, and the blocks by address."""

    __slots__ = ("blocks", "keys", "least_left")

    def __init__(self, *, least_left: int) -> None:
        self.least_left = least_left
        self.keys: list[int] = []
        self.blocks: dict[int, Block] = {}

    def best(self, size: int) -> Block | None:
        """Takes out the smallest free block of at least `size`."""
        at = bisect_left(self.keys, size << _SHIFT)
        if at == len(self.keys):
            return None
        return self.blocks.pop(self.keys.pop(at) & _ADDRESS)

    def add(self, block: Block) -> None:
        insort(self.keys, block.size << _SHIFT | block.at)
        self.blocks[block.at] = block
        block.free = True

    def remove(self, block: Block) -> None:
        del self.keys[bisect_left(self.keys, block.size << _SHIFT | block.at)]
        del self.blocks[block.at]

    def release(self) -> int:
        """Lets go of the segments that are wholly free; the bytes of these."""
        whole = [b for b in self.blocks.values() if b.before is None and b.after is None]
        for block in whole:
            self.remove(block)
        return sum(block.size for block in whole)


class CachingAllocator:
    """The state of the allocator, on a device where it may have `capacity_bytes`.

    `allocated_bytes` are in blocks handed out, `reserved_bytes` in segments.
    """

    def __init__(self, capacity_bytes: float = inf) -> None:
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = self.reserved_bytes = 0
        self._small = _Pool(least_left=GRAIN)
        self._large = _Pool(least_left=SMALL + GRAIN)
        self._end = 0

    def take(self, size_bytes: int) -> Block | None:
        """A block of at least so many bytes, or None if that does not fit."""
        size = -(-size_bytes // GRAIN) * GRAIN
        pool = self._small if size <= SMALL else self._large
        block = pool.best(size) or self._segment(pool, size)
        if block is None:
            return None
        block.free = False
        if block.size - size >= pool.least_left:
            self._split(block, size)
        self.allocated_bytes += block.size
        return block

    def give(self, block: Block) -> None:
        """Takes a block back."""
        self.allocated_bytes -= block.size
        pool, before, after = block.pool, block.before, block.after
        if before is not None and before.free:
            pool.remove(before)
            block.at, block.size = before.at, before.size + block.size
            block.before = before.before
            if block.before is not None:
                block.before.after = block
        if after is not None and after.free:
            pool.remove(after)
            block.size += after.size
            block.after = after.after
            if block.after is not None:
                block.after.before = block
        pool.add(block)

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.pool, block.at + size, block.size - size)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.size, block.after = size, rest
        block.pool.add(rest)

    def _segment(self, pool: _Pool, size: int) -> Block | None:
        if size <= SMALL:
            length = SMALL_SEGMENT
        elif size < MIDDLE:
            length = MIDDLE_SEGMENT
        else:
            length = -(-size // LARGE_GRAIN) * LARGE_GRAIN
        if self.reserved_bytes + length > self.capacity_bytes:
            self.reserved_bytes -= self._small.release() + self._large.release()
            if self.reserved_bytes + length > self.capacity_bytes:
                return None
        self.reserved_bytes += length
        self._end += length
        return Block(pool, self._end - length, length)


def replay(requests: Iterable[Iterable[int]], capacity_bytes: float = inf) -> Reserved:
    """What the allocator hands out and reserves for these requests, on a device of its own.

    A request of `n > 0` takes `n` bytes, `-i` gives back what was taken as number `i` from 0.
    """
    allocator = CachingAllocator(capacity_bytes)
    blocks: list[Block] = []
    most_allocated = most_reserved = 0
    for line in requests:
        for request in line:
            if request <= 0:
                allocator.give(blocks[-request])
                continue
            block = allocator.take(request)
            if block is None:
                return Reserved(
                    allocated_bytes=most_allocated, reserved_bytes=most_reserved, fits=False
                )
            blocks.append(block)
            most_allocated = max(most_allocated, allocator.allocated_bytes)
            most_reserved = max(most_reserved, allocator.reserved_bytes)
    return Reserved(allocated_bytes=most_allocated, reserved_bytes=most_reserved, fits=True)
