"""The draws of a step: each a `random.*` op of seed, step and its own number."""

from supernode.capture.sites import user_line
from supernode.capture.tape import Tape
from supernode.errors import CaptureError
from supernode.ir import Arg, DType, HostType, Op, Port, TensorType, Value

SEED, STEP = "random.seed", "random.step"
"""Two numbers of int64 that are part of the state: what is drawn from, and how many steps were."""


class Draws:
    """Records draws on a tape and numbers them in the order of the step.

    What they read comes before the ops of the tape: `prelude` reads the numbers of the two inputs
    and counts the step. The numbers of draws stand there too, so that layers remain alike.
    """

    def __init__(self, tape: Tape) -> None:
        self.inputs: list[tuple[Port, Value]] = []
        self.prelude: list[Op] = []
        self._tape = tape
        self._numbers: tuple[Value, ...] = ()
        self._next_step: Value | None = None
        self._count = 0

    @property
    def updates(self) -> dict[str, Value]:
        """The inputs that a step changes, with their value after it."""
        return {} if self._next_step is None else {STEP: self._next_step}

    def draw(self, kind: str, type_: TensorType, *args: Arg) -> Value:
        """A tensor of `type_` drawn by `random.kind`, which takes `args` behind the shape.

        Raises:
            CaptureError: the tensor is complex.
        """
        if "complex" in type_.dtype:
            raise CaptureError(
                "the step draws complex random numbers",
                where=user_line(),
                fix="draw two real tensors and join them (torch.complex)",
            )
        if self._next_step is None:
            self._begin()
        number = self._before("host.int", (self._count,), HostType("int64"))
        self._count += 1
        kwargs = (("dtype", DType(type_.dtype)),)
        all_args = (*self._numbers, number, type_.shape, *args)
        (value,) = self._tape.emit(f"random.{kind}", all_args, kwargs, (type_,))
        return value

    def _begin(self) -> None:
        type_ = TensorType("int64", ())
        for name in (SEED, STEP):
            value = self._tape.value(type_)
            self.inputs.append((Port(name=name, role="state"), value))
            read = self._before("aten._local_scalar_dense", (value,), HostType("int64"))
            self._numbers += (read,)
        step = self.inputs[1][1]
        self._next_step = self._before("aten.add.Tensor", (step, 1), type_)

    def _before(self, name: str, args: tuple[Arg, ...], type_: TensorType | HostType) -> Value:
        value = self._tape.value(type_)
        self.prelude.append(Op(name=name, args=args, outputs=(value,)))
        return value
