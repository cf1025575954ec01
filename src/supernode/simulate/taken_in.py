"""Small ops that the kernel of a product or of attention does itself.

- *Masks.* What only an attention reads as its mask, made of positions, is computed where the
  scores are. (He et al., "FlexAttention", 2024; kernels for decoding take lengths.)
- *Casts.* A product of two operands that were widened is one of what they were, summed and
  written wide: the products of 16-bit floats are exact in float32. (cuBLAS, `cublasGemmEx` with
  inputs in 16 bits and a result in 32, which routers run by.)
- *Layout.* A copy that only brings the result of a product or an attention in another order is
  written by its kernel in that order. (PyTorch 2, ASPLOS 2024, section 4.3: layouts of buffers.)
- *Parts.* A buffer whose parts along its first dim are each written in place is whole again, with
  no copy.
- *Routing.* From the scores of a router to where each row goes: kernels for experts take the
  scores and begin with it, and what was measured of them counts it. (TensorRT-LLM and FlashInfer,
  fused mixture of experts; vLLM, `topk_softmax` and `moe_align_block_size`.)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from supernode.ir import Op, Value
from supernode.ops import Cost, fuses, gathers, is_view, overwrites
from supernode.simulate.side_by_side import CostOf

_NARROW = ("bfloat16", "float16")
_ROUTED = "aten._grouped_mm"
_ALL = frozenset((-1,))
"""The readers of what nothing in these ops reads."""


def taken_in(ops: Sequence[Op], readers: Mapping[int, set[int]], cost: CostOf) -> dict[int, Cost]:
    """What such ops cost, nothing, and what the products of widened operands cost."""
    making = _making(ops)
    found: dict[int, Cost] = {}
    for at, op in enumerate(ops):
        mask = op.kwarg("attn_mask")
        if isinstance(mask, Value):
            found |= dict.fromkeys(_only_for(at, mask, ops, making, readers), Cost())
        elif op.name in ("aten.mm", "aten.addmm"):
            found |= _narrow(at, ops, making, readers, cost)
        elif _was_whole(op, ops, making) or _follows_product(op, ops, making, readers, cost):
            found[at] = Cost()
    if any(op.name == _ROUTED and op.site.phase == "forward" for op in ops):
        routing = set(_routing(ops, making))
        constant = (at for at, op in enumerate(ops) if not op.inputs and fuses(op))
        routing |= {at for at in constant if readers.get(ops[at].outputs[0].id, _ALL) <= routing}
        found |= dict.fromkeys(routing, Cost())
    return found


def _making(ops: Sequence[Op]) -> dict[int, int]:
    """Which op makes each value; what views show is made by what makes what they view."""
    found: dict[int, int] = {}
    for at, op in enumerate(ops):
        seen = found.get(op.inputs[0].id) if is_view(op) and op.inputs else at
        if seen is not None:
            found |= {value.id: seen for value in op.outputs}
    return found


def _only_for(
    reader: int,
    value: Value,
    ops: Sequence[Op],
    making: Mapping[int, int],
    readers: Mapping[int, set[int]],
) -> Iterator[int]:
    """Pointwise ops and constants that nothing but `reader` needs."""
    inside = {reader}
    waiting = [value]
    while waiting:
        at = making.get(waiting.pop().id)
        if at is None or not fuses(ops[at]):
            continue
        if set[int]().union(*(readers.get(out.id, set()) for out in ops[at].outputs)) <= inside:
            inside.add(at)
            waiting += ops[at].inputs
            yield at


def _narrow(
    at: int,
    ops: Sequence[Op],
    making: Mapping[int, int],
    readers: Mapping[int, set[int]],
    cost: CostOf,
) -> dict[int, Cost]:
    """A product of two widened operands, and their casts if only it reads them."""
    op = ops[at]
    casts = [making.get(value.id, -1) for value in op.inputs[-2:]]
    if any(cast < 0 or not _widens(ops[cast]) for cast in casts):
        return {}
    given = [ops[cast].inputs[0].type for cast in casts]
    full = cost(op)
    read = float(sum(type_.size_bytes for type_ in given))
    found = {at: replace(full, dtype=ops[casts[0]].inputs[0].tensor.dtype, bytes_read=read)}
    for cast in casts:
        if readers.get(ops[cast].outputs[0].id, set()) <= {at}:
            found[cast] = Cost()
    return found


def _widens(op: Op) -> bool:
    if op.name != "aten._to_copy" or op.outputs[0].tensor.dtype != "float32":
        return False
    return op.inputs[0].tensor.dtype in _NARROW


def _was_whole(op: Op, ops: Sequence[Op], making: Mapping[int, int]) -> bool:
    """Whether `op` joins the parts of one buffer, which were written in place."""
    if op.name != "aten.cat" or op.arg(1, "dim", 0) != 0:
        return False
    cut: set[int] = set()
    for value in op.inputs:
        writing = ops[making[value.id]] if value.id in making else None
        part = making.get(writing.inputs[0].id) if writing and overwrites(writing) else None
        if part is None or ops[part].name != "local.part" or ops[part].args[1] != 0:
            return False
        cut.add(ops[part].inputs[0].id)
    return len(cut) == 1


def _follows_product(
    op: Op,
    ops: Sequence[Op],
    making: Mapping[int, int],
    readers: Mapping[int, set[int]],
    cost: CostOf,
) -> bool:
    """Whether `op` copies all that a product or an attention gave, and nothing else reads that."""
    at = making.get(op.inputs[0].id) if op.name == "aten.clone" else None
    if at is None or not ops[at].name.startswith("aten.") or cost(ops[at]).unit != "matmul":
        return False
    made = ops[at].outputs[0]
    return made.tensor.numel == op.outputs[0].tensor.numel and len(readers.get(made.id, ())) == 1


def _routing(ops: Sequence[Op], making: Mapping[int, int]) -> Iterator[int]:
    """What follows from scores alone, up to where rows are moved; of one phase, before gradients.

    Scores are what products give of which no more than one number an expert is left for a token.
    """
    follows = _scores(ops, making)
    for at, op in enumerate(ops):
        if is_view(op) or op.name == _ROUTED or op.site.phase != "forward":
            continue
        made = [making[value.id] for value in op.inputs if value.id in making]
        moves_rows = gathers(op) and making.get(op.inputs[0].id) not in follows
        if follows.isdisjoint(made) or moves_rows:
            continue
        if all(one in follows or not ops[one].inputs for one in made):
            follows.add(at)
            if not op.name.startswith("fabric."):
                yield at


def _scores(ops: Sequence[Op], making: Mapping[int, int]) -> set[int]:
    """The products whose result decides where rows go: which ends of groups follow from."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [op.inputs[2] for op in ops if op.name == _ROUTED and op.site.phase == "forward"]
    while waiting:
        at = making.get(waiting.pop().id)
        if at is None or at in seen:
            continue
        seen.add(at)
        if ops[at].name in ("aten.mm", "aten.addmm"):
            found.add(at)
        else:
            waiting += ops[at].inputs
    return found
