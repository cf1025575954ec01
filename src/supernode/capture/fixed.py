"""Numbers that a step reads from tensors that no input reaches: computed on the spot."""

from torch import Tensor

from supernode.capture import compat
from supernode.capture.tape import Tape
from supernode.ir import Block, Port, Program, Value
from supernode.kernels import generate


def fixed_number(tape: Tape, value: Value) -> float | None:
    """The number in a 0-dim tensor made of constants alone (positions, masks), else None."""
    ops = tape.fixed_cone(value)
    if ops is None:
        return None
    program = Program(
        name="fixed",
        main=Block(name="main", inputs=(), ops=ops, outputs=(value,)),
        inputs=(),
        outputs=(Port(name="number", role="result"),),
        updates=(None,),
    )
    with compat.real_tensors():
        (tensor,) = generate(program)([])
    assert isinstance(tensor, Tensor)
    return compat.number_of(tensor)
