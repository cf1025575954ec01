"""What is made like another value is made of nothing, and does not wait for that."""

from dataclasses import replace

from supernode.ir.program import Block, Op, Program
from supernode.ir.types import DType, TensorType, Value
from supernode.ir.verify import verify

_FILLS = {
    "aten.zeros_like": 0.0,
    "aten.ones_like": 1.0,
    "aten.new_zeros": 0.0,
    "aten.new_ones": 1.0,
}


def free_scalars(program: Program) -> Program:
    """`program` with such single numbers in `main` made of nothing; results are unchanged.

    Backward starts from ones like the loss. Made so, all of it would hang on the last number of
    forward, which under microbatches is there only when every part of the batch is done.
    """
    main = program.main
    ops = tuple(op if _shape(op) else _freed(op) for op in main.ops)
    return verify(replace(program, main=replace(main, ops=ops)))


def free_fills(local: Program) -> Program:
    """`local`, the program of one chip, with all of them made of nothing.

    Before it is spread an op is better off with its operand, whose layout it takes.
    """
    return replace(local, main=_all(local.main), blocks=tuple(map(_all, local.blocks)))


def _all(block: Block) -> Block:
    return replace(block, ops=tuple(map(_freed, block.ops)))


def _shape(op: Op) -> tuple[int, ...]:
    type_ = op.outputs[0].type if op.outputs else None
    return type_.shape if isinstance(type_, TensorType) else ()


def _freed(op: Op) -> Op:
    return op if (made := filled(op, op.outputs[0])) is None else made


def is_zeros(op: Op) -> bool:
    """Whether `op` makes zeros like its operand."""
    return _FILLS.get(op.name) == 0.0


def filled(op: Op, out: Value) -> Op | None:
    """The op that makes `out` of nothing, of what `op` makes its output; None if that is not one
    number all over."""
    fill = _FILLS.get(op.name)
    if fill is None:
        return None
    kwargs = (("dtype", DType(out.tensor.dtype)),)
    args = (out.tensor.shape, fill)
    return Op(name="aten.full", args=args, kwargs=kwargs, outputs=(out,), site=op.site)
