"""What a step computes from constants alone: done on the spot, so that Python may look at it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from supernode.capture import compat
from supernode.capture.tape import Tape
from supernode.ir import Block, Port, Program, Value
from supernode.kernels import generate

Constants = Sequence[tuple[Value, Tensor]]
"""Real tensors from outside of the step, and the inputs that stand for them."""


def fixed_tensor(tape: Tape, value: Value, constants: Constants) -> Tensor | None:
    """The tensor that is made of constants alone (positions, masks, sizes of images), else None."""
    ops = tape.fixed_cone(value, {each.id for each, _ in constants})
    if ops is None:
        return None
    inputs = tuple(each for each, _ in constants)
    program = Program(
        name="fixed",
        main=Block(name="main", inputs=inputs, ops=ops, outputs=(value,)),
        inputs=tuple(Port(name=f"constant[{each.id}]", role="constant") for each in inputs),
        outputs=(Port(name="fixed", role="result"),),
        updates=(None,),
    )
    with compat.real_tensors():
        (tensor,) = generate(program)([tensor for _, tensor in constants])
    assert isinstance(tensor, Tensor)
    return tensor


def fixed_number(tape: Tape, value: Value, constants: Constants) -> float | None:
    """The number in a 0-dim tensor made of constants alone, else None."""
    tensor = fixed_tensor(tape, value, constants)
    return None if tensor is None else compat.number_of(tensor)


def with_fixed(args: Any, fixed: dict[int, Tensor]) -> Any:
    """`args` with real tensors in place of those whose ids are in `fixed`."""
    if isinstance(args, Tensor):
        return fixed[id(args)]
    if isinstance(args, list | tuple):
        return [with_fixed(arg, fixed) for arg in args]
    return args
