"""Folds 16-bit floats in float32: sums, products and extremes are rounded once, at the end.

CPUs widen each operand to compute with it, and would round after each step; a sum of many numbers
then loses digits that a GPU, which folds in another order, keeps.
"""

from ..tile.ops import Block, Op, Region, Value, words
from ..tile.types import F32, Type

_ARITHMETIC = words(
    "const add sub mul div neg fabs fmaxnum fminnum fmaximum fminimum cmp select and or"
)


def widen_folds(region: Region) -> None:
    """Applies the rewrite to every `reduce` and `scan` of `region` whose function is arithmetic."""
    for block in region.blocks:
        for op in list(block.ops):
            if op.name in ("reduce", "scan"):
                if any(_is_half(value) for value in op.operands) and _is_arithmetic(op.regions[0]):
                    _widen(op, block)
            else:
                for inner in op.regions:
                    widen_folds(inner)


def _is_half(value: Value) -> bool:
    return value.type.elem.is_float and value.type.elem.bits == 16


def _is_arithmetic(function: Region) -> bool:
    """Whether it computes with its own values only, and looks at no bits of theirs."""
    if len(function.blocks) > 1:
        return False
    known = {*function.block.args}
    for op in function.block.ops[:-1]:
        if op.name not in _ARITHMETIC or not known.issuperset(op.operands):
            return False
        known.update(op.results)
    return known.issuperset(function.block.ops[-1].operands)


def _widen(op: Op, block: Block) -> None:
    function, place = op.regions[0].block, block.ops.index(op)
    before: list[Op] = []
    after: list[Op] = []
    for number, value in enumerate(op.operands):
        if _is_half(value):
            wide = _cast(op, value, Value(_single(value.type), name=f"{value.name}w"))
            op.operands[number] = wide.result
            before.append(wide)
    for number, value in enumerate(op.results):
        if _is_half(value):
            wide = Value(_single(value.type), op, number, f"{value.name}w")
            op.results[number] = wide
            after.append(_cast(op, wide, value))
    for value in [*function.args, *(value for each in function.ops for value in each.results)]:
        if _is_half(value):
            value.type = _single(value.type)
    block.ops[place : place + 1] = [*before, op, *after]


def _single(kind: Type) -> Type:
    return kind.with_elem(F32)


def _cast(near: Op, source: Value, target: Value) -> Op:
    cast = Op("fcast", [source], [target], location=near.location)
    target.op, target.index = cast, 0
    return cast
