"""What is made like another value, and is no piece of it, is made of nothing and does not wait.

Backward starts from ones like the loss. Made so, all of it would hang on the last number of
forward, which under microbatches is there only when every part of the batch is done. Zeros to add
rows to would hang on these rows, which differ from part to part where the zeros do not.
"""

from dataclasses import replace

from supernode.ir.program import Op, Program
from supernode.ir.types import DType, TensorType
from supernode.ir.verify import verify

_FILLS = {
    "aten.zeros_like": 0.0,
    "aten.ones_like": 1.0,
    "aten.new_zeros": 0.0,
    "aten.new_ones": 1.0,
}


def free_fills(program: Program) -> Program:
    """`program` with such constants in `main` made of nothing; results are unchanged."""
    main = program.main
    return verify(replace(program, main=replace(main, ops=tuple(map(_freed, main.ops)))))


def _freed(op: Op) -> Op:
    fill = _FILLS.get(op.name)
    type_ = op.outputs[0].type if op.outputs else None
    if fill is None or not isinstance(type_, TensorType):
        return op
    # One of the shape of the other lies in pieces like it, wherever that does.
    if type_.shape and op.inputs[0].tensor.shape == type_.shape:
        return op
    kwargs = (("dtype", DType(type_.dtype)),)
    return replace(op, name="aten.full", args=(type_.shape, fill), kwargs=kwargs)
