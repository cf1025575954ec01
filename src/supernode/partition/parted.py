"""A block as two, of which the second one reads some of what the first one gives."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from supernode.ir import Block, NewValues, Op, Value
from supernode.partition.fuse import Slices


class Parted(NamedTuple):
    """A block as two `blocks`, of which the second one reads some of what the first one gives.

    `taken` are the inputs of the block that each takes, `given` the outputs that each gives. The
    first one gives more than these; `handed` are the places of its results that the second one
    takes behind its inputs.
    """

    blocks: tuple[Block, Block]
    taken: tuple[tuple[int, ...], tuple[int, ...]]
    given: tuple[tuple[int, ...], tuple[int, ...]]
    handed: tuple[int, ...]


def parted(block: Block, wanted: Collection[int]) -> Parted | None:
    """`block` as what leads to the outputs `wanted`, and the rest; None where there is no rest."""
    early = Slices(block.ops).leading_to({block.outputs[i].id for i in wanted})
    return parted_in(block, early, ".".join(map(str, wanted)))


def parted_in(block: Block, early: Sequence[Op], label: str) -> Parted | None:
    """`block` as `early`, of its ops those that need none of the others, and the rest."""
    made_early = {value.id: value for op in early for value in op.outputs}
    late = [op for op in block.ops if op.outputs[0].id not in made_early]
    if not late:
        return None
    made_late = {value.id for op in late for value in op.outputs}
    places = range(len(block.outputs))
    given = (
        tuple(i for i in places if block.outputs[i].id not in made_late),
        tuple(i for i in places if block.outputs[i].id in made_late),
    )
    handed = {v.id: v for op in late for v in op.inputs if v.id in made_early}
    outputs = [block.outputs[i] for i in given[0]]
    outputs += [value for id_, value in handed.items() if id_ not in {v.id for v in outputs}]
    where = {value.id: i for i, value in reversed(list(enumerate(outputs)))}
    read = [{value.id for op in ops for value in op.inputs} for ops in (early, late)]
    read[0] |= {value.id for value in outputs}
    taken = tuple(
        tuple(i for i, value in enumerate(block.inputs) if value.id in ids) for ids in read
    )
    inputs = [tuple(block.inputs[i] for i in each) for each in taken]
    name = f"{block.name}@{label}"
    blocks = (
        Block(name=f"{name}@first", inputs=inputs[0], ops=tuple(early), outputs=tuple(outputs)),
        Block(
            name=f"{name}@rest",
            inputs=(*inputs[1], *handed.values()),
            ops=tuple(late),
            outputs=tuple(block.outputs[i] for i in given[1]),
        ),
    )
    return Parted(blocks, (taken[0], taken[1]), given, tuple(where[id_] for id_ in handed))


def two_calls(op: Op, halves: Parted, new: NewValues) -> tuple[Op, Op]:
    """The two calls that a call of a parted block becomes."""

    def call(block: Block, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Op:
        return replace(op, block=block.name, args=inputs, outputs=outputs)

    first, second = halves.blocks
    handed = new.like(first.outputs[len(halves.given[0]) :])
    gives = [tuple(op.outputs[i] for i in given) for given in halves.given]
    takes = [tuple(op.inputs[i] for i in taken) for taken in halves.taken]
    again = tuple((*gives[0], *handed)[i] for i in halves.handed)
    return call(first, takes[0], (*gives[0], *handed)), call(second, (*takes[1], *again), gives[1])
