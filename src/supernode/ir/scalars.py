"""Scalars made like another one are made of nothing, so that they don't wait for it.

Backward starts from ones like the loss. Made so, all of it would hang on the last number of
forward, which under microbatches is there only when every part of the batch is done.
"""

from dataclasses import replace

from supernode.ir.program import Op, Program
from supernode.ir.types import DType, TensorType
from supernode.ir.verify import verify

_FILLS = {"aten.zeros_like": 0.0, "aten.ones_like": 1.0}


def free_scalars(program: Program) -> Program:
    """`program` with scalars like others in `main` as constants; results are unchanged."""
    main = program.main
    return verify(replace(program, main=replace(main, ops=tuple(map(_freed, main.ops)))))


def _freed(op: Op) -> Op:
    fill = _FILLS.get(op.name)
    type_ = op.outputs[0].type if op.outputs else None
    if fill is None or not isinstance(type_, TensorType) or type_.shape:
        return op
    kwargs = (("dtype", DType(type_.dtype)),)
    return replace(op, name="aten.full", args=((), fill), kwargs=kwargs)
