"""Which values of a block may share memory, and which of those memories may be overwritten.

A value has roots: the inputs or ops whose memory it may share. An op that makes new memory is its
own root; a view has the roots of what it looks at; what is not known to make new memory may share
that of all its operands.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from supernode.ir import CALL, RECEIVE, SEND, Block, Op, TensorType, Value
from supernode.ops import makes_new_memory
from supernode.plan.elementwise import first_operand
from supernode.plan.liveness import last_uses

# Views that show each element of a densely packed tensor once.
_WHOLE_VIEWS = """
    view _unsafe_view reshape t transpose permute unsqueeze squeeze detach alias lift_fresh
"""
WHOLE_VIEWS = frozenset(_WHOLE_VIEWS.split())


LETTERS = (SEND, RECEIVE)
"""The ops of a pipeline's stages: from chip to chip, where others are among all of a group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the outputs of a block share: for each, its roots, and whether it is densely packed.

    A root below the number of inputs is that input; others are memory the block makes.
    """

    roots: tuple[frozenset[int], ...]
    dense: tuple[bool, ...]


class Aliases:
    """The roots of each value of a block and how long each value lives.

    `contiguous` holds the values that are sure to lie in memory in the order of their elements,
    if the inputs with the ids in `contiguous_inputs` do.
    """

    def __init__(
        self,
        block: Block,
        callees: Mapping[str, Summary],
        contiguous_inputs: frozenset[int] = frozenset(),
    ) -> None:
        self.contiguous = set(contiguous_inputs)
        self.block = block
        self.last = last_uses(block)
        self._inputs = {value.id for value in block.inputs}
        self._roots: dict[int, frozenset[int]] = {}
        self._dense: set[int] = set()
        self._sharers: dict[int, list[int]] = {}
        self._new_root = -1
        for value in block.inputs:
            self._define(value, frozenset({value.id}), dense=True)
        for op in block.ops:
            if op.name == CALL:
                self._call(op, callees[op.block])
            else:
                self._op(op)

    def _define(self, value: Value, roots: frozenset[int], *, dense: bool) -> None:
        self._roots[value.id] = roots
        if dense:
            self._dense.add(value.id)
        for root in roots:
            self._sharers.setdefault(root, []).append(value.id)

    def _op(self, op: Op) -> None:
        first = first_operand(op)
        if first is not None and first.id in self.contiguous:
            self.contiguous.add(op.outputs[0].id)
        for value, shared in zip(op.outputs, shared_operands(op), strict=True):
            if not shared:
                self._define(value, frozenset({value.id}), dense=True)
                continue
            dense = _is_whole(op) and all(source.id in self._dense for source in shared)
            roots = frozenset[int]().union(*(self._roots[source.id] for source in shared))
            self._define(value, roots, dense=dense)

    def _call(self, op: Op, callee: Summary) -> None:
        fresh: dict[int, int] = {}
        for value, inner, dense in zip(op.outputs, callee.roots, callee.dense, strict=True):
            roots: set[int] = set()
            for root in inner:
                if root < len(op.inputs):
                    source = op.inputs[root].id
                    roots |= self._roots[source]
                    dense = dense and source in self._dense
                    continue
                if root not in fresh:
                    # Negative, so that it is no value of this block.
                    fresh[root] = self._new_root
                    self._new_root -= 1
                roots.add(fresh[root])
            self._define(value, frozenset(roots), dense=dense)

    def summary(self) -> Summary:
        """What a caller of the block must know."""
        place = {value.id: i for i, value in enumerate(self.block.inputs)}
        offset = len(place)
        numbers = {root: offset + i for i, root in enumerate(sorted(self._sharers))}
        numbers.update(place)
        return Summary(
            roots=tuple(
                frozenset(numbers[root] for root in self._roots[value.id])
                for value in self.block.outputs
            ),
            dense=tuple(value.id in self._dense for value in self.block.outputs),
        )

    def may_overwrite(self, at: int, value: Value, given: frozenset[int]) -> bool:
        """Whether the op at `at` may overwrite its operand `value`: nobody reads it any more.

        `given` are the inputs of the block that its callers do not need again.
        """
        op = self.block.ops[at]
        if value.id not in self._dense or op.inputs.count(value) != 1:
            return False
        if any(root in self._inputs and root not in given for root in self._roots[value.id]):
            return False
        operands = {operand.id for operand in op.inputs if operand != value}
        return all(
            self.last[sharer] <= at and sharer not in operands
            for root in self._roots[value.id]
            for sharer in self._sharers[root]
        )


def shared_operands(op: Op) -> Iterator[tuple[Value, ...]]:
    """For each output of `op`, the operands whose memory it may share."""
    tensors = tuple(value for value in op.inputs if isinstance(value.type, TensorType))
    namespace = op.name.partition(".")[0]
    if namespace == "fabric":
        if op.name in LETTERS:
            # What is sent is copied at once; what arrives is the receiver's own.
            yield from (() for _ in op.outputs)
            return
        # Over an axis of one chip a collective hands back its operand.
        yield from ((value,) for value in tensors[: len(op.outputs)])
        return
    new = namespace in ("host", "place") or makes_new_memory(op)
    shared = () if new else tensors
    yield from (shared for _ in op.outputs)


def _is_whole(op: Op) -> bool:
    namespace, name = op.name.split(".")[:2]
    return namespace == "fabric" or (namespace == "aten" and name in WHOLE_VIEWS)
