"""Which chunk of a pipeline each op belongs to, and on which one each weight lives.

Forward is cut in chunks of about equal cost where little has to be sent on. Backward follows the
activations it reads; the optimizer follows the weights. Tied weights, skip connections, encoders
and decoders are no special case: what is needed elsewhere is sent there.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from statistics import median_high

from supernode.errors import LayoutError
from supernode.ir import CALL, HostType, Op, Program, Value
from supernode.ops import cost
from supernode.partition.fuse import written_out
from supernode.partition.named import named_ends
from supernode.partition.unroll import Tag

FLOPS_PER_BYTE = 200.0
"""What a byte moved weighs beside a FLOP: a chip's matmul rate over its memory bandwidth.

H100: 989e12 / 3.35e12 = 295; Ascend 910C die: 376e12 / 1.6e12 = 235 (machine/catalogue)."""

SENT_FLOPS_PER_BYTE = 2000.0
"""What a byte sent on weighs: a chip's matmul rate over what a link carries one way.

H100 with NVLink: 989e12 / 450e9 = 2198; Ascend 910C die on the UB plane: 376e12 / 196e9 = 1918
(machine/catalogue). Messages overlap with computing, so this is a preference, not a cost."""

TOO_MUCH = 4
"""No cut where so many times as much is sent on as at most cuts of equal chunks: the scores of a
vocabulary stay with the loss that reads them, though both are heavy."""

EVERYWHERE = -1
"""The chunk of an op that each chunk which needs it does for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """`of[i]` is the chunk of op `i` of main, `homes[i]` that of input `i` (`EVERYWHERE`: all).

    `local` and its `tags` are what was given, with the calls `mixed` written out, which work on
    weights of several chunks. `weights` are the ops that give gradients of weights alone, where
    they are told apart.
    """

    local: Program
    tags: list[Tag]
    of: list[int]
    homes: list[int]
    mixed: frozenset[int] = frozenset()
    weights: frozenset[int] = frozenset()

    def alike(self, local: Program) -> "Chunks":
        """The same chunks of a program that has the same ops as the given one on other sizes."""
        return replace(self, local=_written_out(local, self.mixed)[0])


def backward_level(local: Program, tags: Sequence[Tag]) -> int:
    """The level of which forward and backward of each microbatch are the tasks of a schedule."""
    pairs = zip(local.main.ops, tags, strict=True)
    return max(
        (tag.level for op, tag in pairs if tag.part is not None and op.site.phase == "backward"),
        default=0,
    )


def chunks_of(
    local: Program, tags: Sequence[Tag], count: int, begins: Sequence[str] = ()
) -> Chunks:
    """Cuts the ops of main in `count` chunks; those behind the first one begin with the modules
    `begins`, if any are named.

    Raises:
        LayoutError: forward has fewer places to cut than that, or a name fits none of them.
    """
    return _Chunks(local, tags, count, begins).assign()


class _Chunks:
    def __init__(
        self, local: Program, tags: Sequence[Tag], count: int, begins: Sequence[str]
    ) -> None:
        self.count, self.begins = count, begins
        self.inputs = {value.id: i for i, value in enumerate(local.main.inputs)}
        self.blocks = {block.name: block for block in local.blocks}
        self.home: dict[int, int] = {}
        self.mixed: frozenset[int] = frozenset()
        self._take(local, list(tags))
        self.of = [EVERYWHERE] * len(self.ops)

    def _take(self, local: Program, tags: list[Tag]) -> None:
        self.local, self.tags, self.ops = local, tags, local.main.ops
        self.made = {v.id: at for at, op in enumerate(self.ops) for v in op.outputs}
        self.owned = self._owned()

    def assign(self) -> Chunks:
        """Forward first, then the weights it reads, then what follows either."""
        self._forward()
        self._weights()
        self._write_out()
        for at in range(len(self.ops)):
            if self.owned[at] and self.of[at] == EVERYWHERE:
                self.of[at] = self._follow(at)
        homes = [self.home.get(i, EVERYWHERE) for i in range(len(self.local.inputs))]
        return Chunks(local=self.local, tags=self.tags, of=self.of, homes=homes, mixed=self.mixed)

    def _owned(self) -> list[bool]:
        """Which ops depend on a weight or state; the others are done wherever they are needed."""
        updated = {source for source in self.local.updates if source is not None}
        own = {
            value.id
            for i, (port, value) in enumerate(
                zip(self.local.inputs, self.local.main.inputs, strict=True)
            )
            if not isinstance(value.type, HostType)
            and (port.role in ("param", "state") or (port.role == "buffer" and i in updated))
        }
        owned: list[bool] = []
        for op in self.ops:
            owned.append(any(value.id in own for value in op.inputs))
            if owned[-1]:
                own |= {value.id for value in op.outputs}
        return owned

    def _is_forward(self, at: int) -> bool:
        forward = self.ops[at].site.phase == "forward" and self.tags[at].part is not None
        return forward and self.owned[at]

    def _forward(self) -> None:
        every = [at for at in range(len(self.ops)) if self._is_forward(at)]
        first = [at for at in every if not self.tags[at].part]
        steps = sorted({self.tags[at].step for at in every})
        places = {step: i for i, step in enumerate(steps)}
        weights = [0.0] * len(steps)
        for at in first:
            weights[places[self.tags[at].step]] += self._weight(self.ops[at])
        if self.begins:
            modules = {self.tags[at].step: self.ops[at].site.module for at in every}
            ends = named_ends(self.begins, [modules[step] for step in steps])
        else:
            ends = cut(weights, self._crossing(first, places), self.count)
        if ends is None:
            raise LayoutError(
                f"forward has {len(steps)} steps, too few for {self.count} chunks",
                fix="choose a smaller pp or vp",
            )
        for at in every:
            self.of[at] = bisect_right(ends, places[self.tags[at].step])

    def _weight(self, op: Op) -> float:
        ops = self.blocks[op.block].ops if op.name == CALL else (op,)
        spent = [cost(each) for each in ops if not each.name.startswith(("fabric.", "local."))]
        return sum(c.flops + FLOPS_PER_BYTE * (c.bytes_read + c.bytes_written) for c in spent)

    def _crossing(self, first: list[int], places: dict[int, int]) -> list[int]:
        """The bytes that would be sent on if forward were cut before each step."""
        change = [0] * (len(places) + 1)
        last: dict[int, int] = {}
        for at in first:
            for value in self.ops[at].inputs:
                last[value.id] = places[self.tags[at].step]
        for at in first:
            here = places[self.tags[at].step]
            for value in self.ops[at].outputs:
                if last.get(value.id, here) > here:
                    change[here + 1] += value.type.size_bytes
                    change[last[value.id] + 1] -= value.type.size_bytes
        return list(accumulate(change))[: len(places)]

    def _weights(self) -> None:
        """Each weight lives where forward reads it first, its state with it."""
        for at, chunk in enumerate(self.of):
            if chunk != EVERYWHERE:
                for value in self.ops[at].inputs:
                    for i in self._roots(value):
                        self.home.setdefault(i, chunk)
        named = {
            port.name: self.home[i] for i, port in enumerate(self.local.inputs) if i in self.home
        }
        for i, (port, value) in enumerate(
            zip(self.local.inputs, self.local.main.inputs, strict=True)
        ):
            # Host numbers are worked out alike everywhere.
            if port.of in named and not isinstance(value.type, HostType):
                self.home.setdefault(i, named[port.of])

    def _roots(self, value: Value) -> list[int]:
        """The inputs of main that a value which no part changes is made of."""
        if value.id in self.inputs:
            port = self.local.inputs[self.inputs[value.id]]
            return [self.inputs[value.id]] if port.role in ("param", "buffer", "state") else []
        at = self.made[value.id]
        if not self.owned[at] or self.of[at] != EVERYWHERE or self.tags[at].part is not None:
            return []
        return [i for source in self.ops[at].inputs for i in self._roots(source)]

    def _write_out(self) -> None:
        """Calls that work on weights of several chunks, like an optimizer's for two layers."""
        self.mixed = frozenset(
            at
            for at, op in enumerate(self.ops)
            if op.name == CALL and self.of[at] == EVERYWHERE and self.tags[at].part is None
            if len({self.home[i] for v in op.inputs if (i := self.inputs.get(v.id)) in self.home})
            > 1
        )
        local, origin = _written_out(self.local, self.mixed)
        self.of = [self.of[at] for at in origin]
        self._take(local, [self.tags[at] for at in origin])

    def _follow(self, at: int) -> int:
        """The chunk of an op that forward does not give: its activations or weights say it."""
        op = self.ops[at]
        made = [self.made[value.id] for value in op.inputs if value.id in self.made]
        known = [m for m in made if self.of[m] != EVERYWHERE]
        if self.tags[at].part is not None:
            gradients = [self.of[m] for m in known if self.tags[m].part is not None]
            nearest = self._nearest(op)
            if nearest is not None:
                return nearest
            if gradients:
                return min(gradients)
        held = [i for v in op.inputs if (i := self.inputs.get(v.id)) is not None and i in self.home]
        if held:
            chunk = self.home[held[0]]
        elif known:
            chunk = self.of[max(known, key=lambda m: _size(self.ops[m]))]
        else:
            chunk = self.count - 1 if self.tags[at].part is not None else 0
        for value in op.inputs:
            i = self.inputs.get(value.id)
            if i is None or isinstance(value.type, HostType):
                continue
            if self.local.inputs[i].role in ("param", "state", "buffer"):
                self.home.setdefault(i, chunk)
        return chunk

    def _nearest(self, op: Op) -> int | None:
        """The chunk that has most of the activations an op reads, the last of several; None where
        it reads none."""
        held: dict[int, int] = defaultdict(int)
        for value in op.inputs:
            for chunk in self._there.get(value.id, ()):
                held[chunk] += value.type.size_bytes
        return max(held, key=lambda chunk: (held[chunk], chunk), default=None)

    @cached_property
    def _there(self) -> dict[int, set[int]]:
        """The chunks that make or read each activation, once all of the forward phase is placed."""
        found: dict[int, set[int]] = defaultdict(set)
        for at in (at for at in range(len(self.ops)) if self._is_forward(at)):
            for value in (*self.ops[at].outputs, *self.ops[at].inputs):
                if self._is_activation(value):
                    found[value.id].add(self.of[at])
        return found

    def _is_activation(self, value: Value) -> bool:
        at = self.made.get(value.id)
        return at is not None and self.of[at] != EVERYWHERE and self._is_forward(at)


def _written_out(local: Program, calls: frozenset[int]) -> tuple[Program, list[int]]:
    main, origin = written_out(local, calls)
    return replace(local, main=main), origin


def _size(op: Op) -> int:
    return sum(value.type.size_bytes for value in op.outputs)


def cut(weights: Sequence[float], crossing: Sequence[int], count: int) -> list[int] | None:
    """The first step of each chunk but the first: the heaviest chunk as light as can be.

    `crossing[i]` are the bytes sent on if step `i` begins a chunk; they weigh on both sides, and
    `TOO_MUCH` is sent only where nothing else gives so many chunks. None where there are fewer
    steps than chunks.
    """
    if len(weights) < count:
        return None
    sums = [0.0, *accumulate(weights)]
    most = TOO_MUCH * _usual(sums, crossing, count)
    places = [at for at in range(1, len(weights)) if crossing[at] <= most]
    if len(places) < count - 1:
        places = list(range(1, len(weights)))
    starts = [0, *places]
    sent = [0.0, *(SENT_FLOPS_PER_BYTE * crossing[at] for at in places), 0.0]
    return [starts[at] for at in _cut([*map(sums.__getitem__, starts), sums[-1]], sent, count)]


def _cut(sums: list[float], sent: list[float], count: int) -> list[int]:
    """`cut` by the sums of the weights before each step, where there are steps enough."""
    if count == 1:
        return []
    low, high = sums[-1] / count, sums[-1] + 2 * max(sent)
    best = _fill(sums, sent, count, math.inf)
    for _ in range(60):
        middle = (low + high) / 2
        found = _fill(sums, sent, count, middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    assert best is not None
    last = len(sums) - 2
    if _weigh(sums, sent, last, last + 1) < high * (1 - 1e-9):
        return best
    # The last step alone is as much as any chunk: what is before it is cut by itself.
    return [*_cut(sums[:-1], sent[:-1], count - 1), last]


def _usual(sums: Sequence[float], crossing: Sequence[int], count: int) -> float:
    """The median of what the cheapest cuts near those of `count` equal chunks send on."""
    least, whole = list[int](), sums[-1] or 1.0
    for cut_at in range(1, count):
        off = [abs(sums[at] * count / whole - cut_at) for at in range(1, len(crossing))]
        reach = max(0.5, min(off))
        least.append(min(crossing[at] for at, far in enumerate(off, 1) if far <= reach))
    return median_high(least) if least else math.inf


def _fill(sums: list[float], sent: list[float], count: int, most: float) -> list[int] | None:
    """Cuts from the left, each as late as keeps its chunk within `most`; None if one does not."""
    total = len(sums) - 1
    ends = [0]
    for left in range(count - 1, -1, -1):
        start, latest = ends[-1], total - left
        ends_here = [total] if not left else range(latest, start, -1)
        end = next((e for e in ends_here if _weigh(sums, sent, start, e) <= most), None)
        if end is None:
            return None
        ends.append(end)
    return ends[1:-1]


def _weigh(sums: list[float], sent: list[float], start: int, end: int) -> float:
    return sums[end] - sums[start] + sent[start] + sent[end]
