"""Rows of tokens brought into the order of their experts, and back, by kernels made for that.

As captured, a token's rows are gathered, sorted, weighed and added up by an op each, and their
gradients by the reverse of those. Stacks do it otherwise: one kernel reads the tokens and writes
their rows, another adds a token's rows up (*permute*); or the kernels that send rows take tokens as
they are and bring back the sums, so that it costs nothing beside the sending. In both the weight of
a row is applied with the activation of its expert, which reads that row anyway.

**Source:** NVIDIA, Megatron-Core, `fused_permute` and `fused_unpermute` of Transformer Engine
(`moe_permute_fusion`) and probabilities in the activation of experts (`weighted_bias_swiglu`),
2025; DeepSeek-AI, DeepEP, 2025 (`dispatch` takes tokens, `combine` gives their sums).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from supernode.ir import TensorType, Value
from supernode.ops import Cost, gathers
from supernode.simulate.side_by_side import CostOf
from supernode.simulate.uses import Uses

ROWS = "fabric.all_to_all_rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsBy:
    """How a stack handles rows: those of so many experts a token are `permuted` by kernels made for
    that (0: as captured), or by those that send them (`sent`). With `paired` microbatches the chip
    computes for one while rows of the other are on their way."""

    permuted: int = 0
    sent: bool = False
    paired: bool = False


AS_CAPTURED = RowsBy()


def sorted_rows(uses: Uses, cost: CostOf, rows: RowsBy) -> dict[int, Cost]:
    """What the ops cost that lie between tokens and the sending of their rows."""
    if rows.permuted < 2:
        return {}
    side = _Side(uses, cost)
    found: dict[int, Cost] = {}
    for op in uses.ops:
        if op.name != ROWS:
            continue
        back = bool(op.args[3])
        for sent, given in zip(op.inputs, op.outputs, strict=False):
            own = side.after(given) if back else side.before(sent)
            found |= dict.fromkeys(own, Cost())
            if own and not rows.sent:
                found[max(own)] = _pass(sent, rows.permuted, back=back)
    return found


def _pass(rows: Value, copies: int, *, back: bool) -> Cost:
    """Rows read and written once, tokens on the other side."""
    many = float(rows.type.size_bytes)
    read, written = (many, many / copies) if back else (many / copies, many)
    return Cost(bytes_read=read, bytes_written=written, unit="vector", dtype=rows.tensor.dtype)


class _Side:
    """The ops on the side of tokens, by what they read and give: values as large as the rows."""

    def __init__(self, uses: Uses, cost: CostOf) -> None:
        self._uses, self._ops, self._cost = uses, uses.ops, cost

    def before(self, rows: Value) -> set[int]:
        """What leads from tokens to `rows`, and weighs them."""
        found: set[int] = set()
        waiting = [rows]
        while waiting:
            at = self._uses.making.get(waiting.pop().id)
            if at is None or at in found or not self._moves(at):
                continue
            found.add(at)
            if not gathers(self._ops[at]):
                waiting += (v for v in self._ops[at].inputs if _alike(v, rows))
        own = (value for at in found for value in self._ops[at].outputs if _alike(value, rows))
        return self._with_constants(found | self._reading(own, rows))

    def after(self, rows: Value) -> set[int]:
        """What leads from `rows` that came back to tokens."""
        return self._with_constants(self._reading((rows,), rows))

    def _reading(self, values: Iterable[Value], rows: Value) -> set[int]:
        """The ops that read these, and what they give as long as it is as large."""
        found: set[int] = set()
        waiting = list(values)
        while waiting:
            for at in self._uses.readers.get(waiting.pop().id, ()):
                if at >= 0 and at not in found and self._moves(at):
                    found.add(at)
                    waiting += (v for v in self._ops[at].outputs if _alike(v, rows))
        return found

    def _with_constants(self, found: set[int]) -> set[int]:
        fills = {
            at
            for at, op in enumerate(self._ops)
            if not op.inputs and op.outputs and self._uses.stays_in(op.outputs[0], found)
        }
        return found | fills

    def _moves(self, at: int) -> bool:
        op = self._ops[at]
        return op.name.startswith("aten.") and self._cost(op).unit != "matmul"


def _alike(value: Value, rows: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.numel == rows.tensor.numel
