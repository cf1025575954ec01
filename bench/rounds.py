"""Rounds: sides that take turns, and rounds of train steps."""

import time
from collections.abc import Callable, Mapping
from itertools import islice

from torch import Tensor

from supernode.models import Job


def alternate(
    sides: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, tuple[float, ...]]:
    """What each side returns in each round; they take turns, and the order turns every round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            found[name].append(sides[name]())
    return {name: tuple(values) for name, values in found.items()}


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
