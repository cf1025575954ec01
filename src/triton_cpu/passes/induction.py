"""Rewrites tiles that a loop moves by a fixed step, `pointers += BLOCK`, into scalar offsets.

A loop-carried tile costs a buffer that is read and written each time round. Where the body only
adds a uniform amount to it, the loop can carry that amount as one scalar instead.
"""

from ..tile.ops import Block, Op, Region, Value, walk
from ..tile.types import I64, Type


def simplify_induction(region: Region) -> None:
    """Applies the rewrite to every `for` of `region`, inner loops first."""
    for block in region.blocks:
        for op in list(block.ops):
            for inner in op.regions:
                simplify_induction(inner)
            if op.name == "for":
                _simplify_loop(op, block)


def _simplify_loop(loop: Op, outer: Block) -> None:
    body = loop.regions[0].block
    for index in range(len(loop.results)):
        carried = body.args[1 + index]
        step = _uniform_step(body, carried, body.ops[-1].operands[index])
        if carried.type.is_tile and step is not None:
            _rewrite(loop, outer, index, step)


def _uniform_step(body: Block, carried: Value, yielded: Value) -> Value | None:
    """The scalar the body adds to every element of `carried`, if that is all it does to it."""
    add = yielded.op
    if add is None or add not in body.ops or add.name not in ("addptr", "add"):
        return None
    if add.name == "add" and not carried.type.elem.is_int:
        return None
    if add.operands[0] is carried:
        amount = add.operands[1]
    elif add.name == "add" and add.operands[1] is carried:
        amount = add.operands[0]
    else:
        return None
    source = amount.op
    if source is not None and source.name == "splat":
        return source.operands[0]
    if source is not None and source.name == "const":
        return amount
    return None


def _rewrite(loop: Op, outer: Block, index: int, step: Value) -> None:
    body = loop.regions[0].block
    carried, terminator = body.args[1 + index], body.ops[-1]
    initial, result = loop.operands[3 + index], loop.results[index]
    elem = I64 if carried.type.elem.is_pointer else carried.type.elem
    scalar = Type(elem)

    zero = _new("const", [], scalar, f"{carried.name}z", value=0)
    outer.ops.insert(outer.ops.index(loop), zero)
    offset = Value(scalar, None, 0, f"{carried.name}o")
    body.args[1 + index] = offset
    moved = _moved(initial, offset, carried)
    body.ops[0:0] = moved
    _replace(loop.regions[0], carried, moved[-1].result)

    ops: list[Op] = []
    if step.op is not None and step.type.is_tile:  # a constant tile: its one value
        ops.append(_new("const", [], scalar, f"{step.name}s", value=step.op.attrs["value"]))
    elif step.type.elem.bits < elem.bits:
        ops.append(_new("sext", [step], scalar, f"{step.name}x"))
    amount = ops[-1].result if ops else step
    ops.append(_new("add", [offset, amount], scalar, f"{carried.name}n"))
    body.ops[-1:-1] = ops
    terminator.operands[index] = ops[-1].result

    loop.operands[3 + index] = zero.result
    final = Value(scalar, loop, index, f"{result.name}o")
    loop.results[index] = final
    after = _moved(initial, final, result)
    at = outer.ops.index(loop) + 1
    outer.ops[at:at] = after[:-1]
    after[-1].results = [result]
    result.op, result.index = after[-1], 0
    outer.ops.insert(at + len(after) - 1, after[-1])


def _moved(initial: Value, offset: Value, like: Value) -> list[Op]:
    """`initial + splat(offset)`, with `like`'s type."""
    splat = _new("splat", [offset], Type(offset.type.elem, like.type.shape), f"{offset.name}t")
    name = "addptr" if like.type.elem.is_pointer else "add"
    return [splat, _new(name, [initial, splat.result], like.type, f"{offset.name}m")]


def _new(name: str, operands: list[Value], kind: Type, label: str, **attrs: object) -> Op:
    op = Op(name, operands, attrs=dict(attrs))
    op.results = [Value(kind, op, 0, label)]
    return op


def _replace(region: Region, old: Value, new: Value) -> None:
    for op in walk(region):
        if op is not new.op:
            op.operands = [new if value is old else value for value in op.operands]
