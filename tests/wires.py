"""What a Plan sends, to be compared with what the textbook scheme would."""

from collections import Counter

from supernode.ir import Program
from supernode.plan import Plan


def sent(plan: Plan) -> Counter[str]:
    """Bytes each collective of the plan carries in one step, by name: its whole value."""
    counts = plan.local.counts()
    total: Counter[str] = Counter()
    for block in plan.local.all_blocks():
        for op in block.ops:
            if op.name.startswith("fabric."):
                sides = (op.inputs, op.outputs)
                size = max(sum(v.type.size_bytes for v in side) for side in sides)
                total[op.name.removeprefix("fabric.")] += size * counts.get(block.name, 1)
    return total


def passes(plan: Plan) -> int:
    """Bytes times how often they travel round a large ring: twice in an all-reduce, else once.

    **Source:** Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms", 2009: an all-reduce is
    a reduce-scatter and an all-gather.
    """
    return sum(size * (2 if name == "all_reduce" else 1) for name, size in sent(plan).items())


def parameter_bytes(of: Program) -> int:
    pairs = zip(of.inputs, of.main.inputs, strict=True)
    return sum(value.tensor.size_bytes for port, value in pairs if port.role == "param")


def within(got: float, textbook: float) -> bool:
    return textbook <= got <= 1.05 * textbook
