"""A long step as a sum of short ones: in equal layers and microbatches its time is a straight line.

A chip does one equal layer after the other, and one microbatch after the other once its pipeline is
full, so what one more of them takes is the same for each. A step of 126 layers and 384 microbatches
then follows from four small ones, each captured, partitioned and simulated as any other: two depths
times two numbers of microbatches. Pipelines keep their depth, which decides where stages are cut.
"""

import re
from dataclasses import replace

from supernode.accuracy.case import Step

Weighed = tuple[float, int]
"""How often a size counts, and the size."""

LAYERS = (3, 5)
"""How many equal layers: the first and the last of them have neighbours of another kind."""
PARTS = (2, 4)
"""How many microbatches: the first and the last of them differ from those between."""

_MICRO = re.compile(r"(?<=micro=)\d+")


def shortened(step: Step) -> list[tuple[float, Step]]:
    """The steps that the time of `step` is the sum of, each as often as it counts; some less than
    0 times. A step that is short already stays as it is."""
    whole, layers = _parts(step), step.shape.layers
    deep = [(1.0, layers)]
    if "pp=" not in step.layout:
        # Where two kinds of layers take turns, the line is through depths with as many of each.
        fixed, turn = step.shape.dense_layers, step.shape.period
        low = fixed + LAYERS[0] * turn + (layers - fixed) % turn
        deep = _line(layers, low, low + LAYERS[1] - LAYERS[0])
    found: list[tuple[float, Step]] = []
    for often, parts in _line(whole, *_few_parts(step.layout)):
        for times, depth in deep:
            batch = step.batch * parts // whole
            layout = _MICRO.sub(str(parts), step.layout)
            shape = replace(step.shape, layers=depth)
            less = replace(step, shape=shape, batch=batch, layout=layout)
            found.append((often * times, less))
    return found


def _parts(step: Step) -> int:
    stated = _MICRO.search(step.layout)
    return int(stated[0]) if stated else 1


def _few_parts(layout: str) -> tuple[int, int]:
    """So many that a pipeline is full, in groups of as many as stages where it is interleaved; some
    of them add to sums of gradients, which the first and the last do in another way."""
    stages = re.search(r"pp=(\d+)", layout)
    if stages is None:
        return PARTS
    count = int(stages[1])
    return (2 * count, 3 * count) if "vp=" in layout else (count + PARTS[0], count + PARTS[1])


def _line(size: int, low: int, high: int) -> list[Weighed]:
    """The straight line through `low` and `high`, at `size`."""
    if size <= high:
        return [(1.0, size)]
    far = (size - low) / (high - low)
    return [(1 - far, low), (far, high)]
