"""How far torch's own samples cover the op table: per row, what was claimed, tried and held."""

import math
from dataclasses import dataclass

from ops.calls import Sample
from ops.opinfo import MESHES
from ops.prove import claimed, expansion, prove, stretch_lengths
from supernode.ops import Row, table

PER_OPERATOR, PER_ROW = 6, 10
"""How many samples of each operator of torch's database, and of each row, the fast test takes."""


@dataclass(slots=True, kw_only=True)
class Coverage:
    """What was tried of a row on some samples; all of it held.

    `claimed` counts factors said to be splittable, over all samples; `split` those that the shapes
    let be split. `linear` and `expanded` count samples on which such a claim was tried.
    """

    samples: int = 0
    claimed: int = 0
    split: int = 0
    linear: int = 0
    expanded: int = 0


def cover(row: Row, samples: list[Sample]) -> Coverage:
    """Proves `row` on `samples`, those of its expansion included.

    Raises:
        Refuted: a claim is false.
    """
    found = Coverage()
    for sample in samples:
        if degenerate(sample):
            continue
        proof = prove(row, sample, MESHES)
        formula = row.formula(sample.op)
        found.samples += 1
        found.claimed += sum(formula.sizes[f] != 1 for f in claimed(formula))
        found.claimed += sum(
            math.gcd(*stretch_lengths(formula, factor)) > 1 for factor in formula.stretches
        )
        found.split += len(proof.splits)
        found.linear += bool(proof.linear)
        found.expanded += proof.expands
        for step in expansion(row, sample) if row.expand else ():
            prove(table()[step.op.name], step, MESHES)
    return found


def degenerate(sample: Sample) -> bool:
    """Whether there is nothing to compare: NaN, a gradient that is all rounding, or two elements
    that are put in one place, of which either may stay.

    One or two numbers, normalised, do not depend on what they were, nor does a softmax that is all
    but certain, as it is in torch's samples of attention: cancellation leaves errors of a gradient.
    """
    name, inputs = sample.op.name, sample.op.inputs
    if any(x.is_floating_point() and bool(x.isnan().any()) for x in sample.outputs):
        return True
    if "max_unpool" in name:
        places = sample.inputs[1].flatten(2).sort(-1).values
        return bool((places.diff(dim=-1) == 0).any())
    if name == "aten._softmax_backward_data":
        return bool((sample.inputs[1] > 0.99).any())
    if "attention" in name:
        return name.endswith("_backward")
    if name.endswith("_norm_backward"):
        statistic = inputs[2 if "layer" in name else -1].tensor
        return inputs[1].tensor.numel <= 2 * statistic.numel
    return False
