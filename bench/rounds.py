"""Rounds: sides that take turns, on a host that others may use too, and rounds of train steps."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from bench.host import others_s
from supernode.models import Job

QUIET_SHARE = 0.1
"""A round in which others used more than this share of the cores is taken again."""
ATTEMPTS = 3
"""At most so many times as many rounds are taken as are kept."""

Sides = Mapping[str, Callable[[], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A recipe at one size, and how many steps a round has."""

    recipe: str
    batch: int
    sequence: int
    steps: int

    @property
    def size(self) -> str:
        """The size in a table."""
        return f"{self.recipe}, {self.batch} x {self.sequence} tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What each side took, and the share of the cores that others used meanwhile."""

    times: Mapping[str, float]
    others_share: float


def alternate(sides: Sides, rounds: int) -> dict[str, tuple[float, ...]]:
    """What each side returns in each round; they take turns, and the order turns every round."""
    return by_side([_turn(sides, number) for number in range(rounds)])


def watched_round(sides: Sides, number: int) -> Round:
    """One round, with what others used meanwhile."""
    used_s, start_s = others_s(), time.monotonic()
    times = _turn(sides, number)
    cores_s = (time.monotonic() - start_s) * (os.cpu_count() or 1)
    return Round(times=times, others_share=max(0.0, others_s() - used_s) / cores_s)


def quiet_rounds(
    sides: Sides, rounds: int, take: Callable[[Sides, int], Round] = watched_round
) -> tuple[list[Round], int]:
    """Rounds as above, taken again where others disturbed them; and how many were taken in all.

    Which are kept depends on what others used alone, never on what was measured: the quiet ones,
    or the quietest if after `ATTEMPTS` times as many there are not enough.
    """
    taken: list[Round] = []
    quiet = 0
    while quiet < rounds and len(taken) < ATTEMPTS * rounds:
        taken.append(take(sides, len(taken)))
        quiet += taken[-1].others_share <= QUIET_SHARE
    order = sorted(range(len(taken)), key=lambda i: taken[i].others_share)
    return [taken[i] for i in sorted(order[:rounds])], len(taken)


def by_side(rounds: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """The values of each side, round by round."""
    return {name: tuple(times[name] for times in rounds) for name in rounds[0]}


def told(kept: Sequence[Round], taken: int) -> str:
    """In words, how quiet the host was."""
    worst = max(each.others_share for each in kept)
    text = (
        f"{len(kept)} of {taken} rounds kept, others used at most {worst:.1%} of the cores in them"
    )
    return text if worst <= QUIET_SHARE else f"{text}: **the host was not quiet**"


def _turn(sides: Sides, number: int) -> dict[str, float]:
    order = list(sides) if number % 2 == 0 else list(sides)[::-1]
    times = {name: sides[name]() for name in order}
    return {name: times[name] for name in sides}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """In `with`, torch computes with `count` threads here, and so do nodes of one chip."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TrainSteps:
    """Rounds of `count` train steps on the data of `job`, run by `step`; `losses` has them all."""

    def __init__(self, job: Job, step: Callable[..., Tensor], count: int) -> None:
        assert job.batches is not None, "the recipe has no data"
        self._batches, self._step, self._count = job.batches(), step, count
        self.losses: list[float] = []

    def __call__(self) -> float:
        """Runs a round; the seconds of a step."""
        batches = list(islice(self._batches, self._count))
        start = time.perf_counter()
        losses = [self._step(*batch) for batch in batches]
        seconds = (time.perf_counter() - start) / self._count
        self.losses += [float(loss) for loss in losses]
        return seconds
