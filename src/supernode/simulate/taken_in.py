"""Small ops that the kernel of a product or of attention does itself.

- *Masks.* What only an attention reads as its mask, made of positions, is computed where the
  scores are. (He et al., "FlexAttention", 2024; kernels for decoding take lengths.)
- *Casts.* A product of two operands that were widened is one of what they were, summed and
  written wide: the products of 16-bit floats are exact in float32. So is a bias that was widened
  for it. (cuBLAS, `cublasGemmEx` with inputs in 16 bits and a result in 32, which routers run by.)
- *Sinks.* What scales the result of an attention by the sum of its scores, and more of no row, is
  done where both are. (OpenAI, gpt-oss, `triton/attention.py`; FlashInfer and TensorRT-LLM take the
  sinks of heads.)
- *Layout.* A copy that only brings the result of a product or an attention in another order is
  written by its kernel in that order. (PyTorch 2, ASPLOS 2024, section 4.3: layouts of buffers.)
- *Parts.* A buffer whose parts along its first dim are each written in place is whole again, with
  no copy.
- *Sums.* A gradient of a weight that is added to the wide sum of earlier microbatches is added by
  the product that makes it, which reads and writes the sum. (Megatron-LM,
  `gradient_accumulation_fusion`.)
- *Routing.* From the scores of a router to where each row goes: kernels for experts take the
  scores and begin with it, and what was measured of them counts it. (TensorRT-LLM and FlashInfer,
  fused mixture of experts; vLLM, `topk_softmax` and `moe_align_block_size`.)
"""

from collections.abc import Iterator
from dataclasses import replace

from supernode.ir import Op, Value
from supernode.ops import Cost, fuses, gathers, is_view, overwrites
from supernode.simulate.side_by_side import CostOf
from supernode.simulate.uses import Uses

_NARROW = ("bfloat16", "float16")
_ROUTED = "aten._grouped_mm"
_ATTENTION = "_scaled_dot_product"


def taken_in(uses: Uses, cost: CostOf, *, sums: bool = True) -> dict[int, Cost]:
    """What such ops cost, nothing, and what the products of widened operands and those that add to
    `sums` cost."""
    ops = uses.ops
    found: dict[int, Cost] = {}
    for at, op in enumerate(ops):
        mask = op.kwarg("attn_mask")
        if isinstance(mask, Value):
            found |= dict.fromkeys(_only_for({at}, mask, uses), Cost())
        if op.name in ("aten.mm", "aten.addmm"):
            found |= _narrow(at, uses, cost)
        elif _ATTENTION in op.name and len(op.outputs) > 1:
            found |= dict.fromkeys(_sinks(at, uses), Cost())
        elif _was_whole(op, uses) or _follows_product(op, uses, cost):
            found[at] = Cost()
        elif sums and op.name == "aten.add.Tensor" and op.site.phase == "backward":
            found |= _summed(at, uses, cost)
    if any(op.name == _ROUTED and op.site.phase == "forward" for op in ops):
        routing = set(_routing(uses))
        constant = (at for at, op in enumerate(ops) if _is_constant(op) and fuses(op))
        routing |= {at for at in constant if uses.stays_in(ops[at].outputs[0], routing)}
        found |= dict.fromkeys(routing, Cost())
    return found


def _only_for(kernel: set[int], value: Value, uses: Uses) -> Iterator[int]:
    """Pointwise ops and constants that nothing but the ops of a `kernel` needs."""
    ops, inside = uses.ops, set(kernel)
    waiting = [value]
    while waiting:
        at = uses.making.get(waiting.pop().id)
        if at is None or not fuses(ops[at]):
            continue
        reading = (uses.readers.get(out.id, set()) for out in ops[at].outputs)
        if set[int]().union(*reading) <= inside:
            inside.add(at)
            waiting += ops[at].inputs
            yield at


def _is_constant(op: Op) -> bool:
    return not op.inputs or op.name == "aten.zeros_like"


def _sinks(attention: int, uses: Uses) -> set[int]:
    """The pointwise ops from the sums of an attention's scores to its result scaled by them, and
    what only they need; none where anything else reads the sums."""
    ops = uses.ops
    result, sums = ops[attention].outputs[:2]
    scaled, inside, waiting = uses.readers.get(result.id, set[int]()), set[int](), [sums]
    while waiting:
        reading = uses.readers.get(waiting.pop().id, set())
        if not reading or any(at < 0 or not fuses(ops[at]) for at in reading):
            return set()
        waiting += [out for at in reading - inside - scaled for out in ops[at].outputs]
        inside |= reading
    beside = [value for at in inside for value in ops[at].inputs]
    return inside.union(*(_only_for(inside, value, uses) for value in beside))


def _narrow(at: int, uses: Uses, cost: CostOf) -> dict[int, Cost]:
    """A product of two widened operands, and their casts if only it reads them."""
    ops, op = uses.ops, uses.ops[at]
    made = [uses.making.get(value.id, -1) for value in op.inputs]
    casts, bias = made[-2:], [cast for cast in made[:-2] if cast >= 0 and _widens(ops[cast])]
    if any(cast < 0 or not _widens(ops[cast]) for cast in casts):
        return {}
    given = [ops[cast].inputs[0].type for cast in casts]
    full = cost(op)
    read = float(sum(type_.size_bytes for type_ in given))
    found = {at: replace(full, dtype=ops[casts[0]].inputs[0].tensor.dtype, bytes_read=read)}
    for cast in (*casts, *bias):
        if uses.readers.get(ops[cast].outputs[0].id, set()) <= {at}:
            found[cast] = Cost()
    return found


def _summed(at: int, uses: Uses, cost: CostOf) -> dict[int, Cost]:
    """The sum of microbatches and the product that makes what is added to it, if only that reads
    it."""
    ops = uses.ops
    wide, added = (ops[at].inputs * 2)[:2]
    product = uses.making.get(added.id, -1)
    if product < 0 or ops[product].name != "aten.mm" or wide.tensor.dtype != "float32":
        return {}
    made = ops[product].outputs[0]
    if made.tensor.dtype not in _NARROW or uses.readers.get(made.id) != {at}:
        return {}
    # Counted with what is written, as it moves with the result and not with the operands.
    full = replace(cost(ops[product]), bytes_written=2.0 * wide.type.size_bytes)
    return {at: Cost(), product: full}


def _widens(op: Op) -> bool:
    if op.name != "aten._to_copy" or op.outputs[0].tensor.dtype != "float32":
        return False
    return op.inputs[0].tensor.dtype in _NARROW


def _was_whole(op: Op, uses: Uses) -> bool:
    """Whether `op` joins the parts of one buffer, which were written in place."""
    ops, making = uses.ops, uses.making
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


def _follows_product(op: Op, uses: Uses, cost: CostOf) -> bool:
    """Whether `op` copies all that a product or an attention gave, and nothing else reads that."""
    ops = uses.ops
    at = uses.making.get(op.inputs[0].id) if op.name == "aten.clone" else None
    if at is None or not ops[at].name.startswith("aten.") or cost(ops[at]).unit != "matmul":
        return False
    made = ops[at].outputs[0]
    return (
        made.tensor.numel == op.outputs[0].tensor.numel and len(uses.readers.get(made.id, ())) == 1
    )


def _routing(uses: Uses) -> Iterator[int]:
    """What follows from scores alone, up to where rows are moved; of one phase, before gradients.

    Scores are what products give of which no more than one number an expert is left for a token.
    """
    ops, making, follows = uses.ops, uses.making, _scores(uses)
    for at, op in enumerate(ops):
        if is_view(op) or op.name == _ROUTED or op.site.phase != "forward":
            continue
        made = [making[value.id] for value in op.inputs if value.id in making]
        moves_rows = gathers(op) and making.get(op.inputs[0].id) not in follows
        if follows.isdisjoint(made) or moves_rows:
            continue
        if all(one in follows or _is_constant(ops[one]) for one in made):
            follows.add(at)
            if not op.name.startswith("fabric."):
                yield at


def _scores(uses: Uses) -> set[int]:
    """The products whose result decides where rows go: which ends of groups follow from."""
    ops = uses.ops
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [op.inputs[2] for op in ops if op.name == _ROUTED and op.site.phase == "forward"]
    while waiting:
        at = uses.making.get(waiting.pop().id)
        if at is None or at in seen:
            continue
        seen.add(at)
        if ops[at].name in ("aten.mm", "aten.addmm"):
            found.add(at)
        else:
            waiting += ops[at].inputs
    return found
