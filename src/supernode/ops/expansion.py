"""Writing an op as several, one after another."""

from dataclasses import replace

from supernode.ir import Arg, DType, Op, TensorType, Value
from supernode.ops.row import Fresh


class Expansion:
    """The ops that stand for one op, in `ops`; they come from where it comes from."""

    def __init__(self, op: Op, fresh: Fresh) -> None:
        self.ops: list[Op] = []
        self._op = op
        self._fresh = fresh

    def emit(self, name: str, type_: TensorType, *args: Arg, **kwargs: Arg) -> Value:
        """Appends a step and returns what it gives, of type `type_`."""
        out = self._fresh(type_)
        self.give(out, name, *args, **kwargs)
        return out

    def like(self, name: str, *args: Arg, **kwargs: Arg) -> Value:
        """`emit` of a step that gives the type of its first argument."""
        first = args[0]
        assert isinstance(first, Value)
        return self.emit(name, first.tensor, *args, **kwargs)

    def give(self, out: Value, name: str, *args: Arg, **kwargs: Arg) -> None:
        """Appends a step that gives `out`."""
        step = replace(self._op, name=name, args=args, kwargs=tuple(kwargs.items()), outputs=(out,))
        self.ops.append(step)

    def cast(self, x: Value, dtype: str) -> Value:
        """`x` in another dtype; `x` itself where it has that one."""
        if x.tensor.dtype == dtype:
            return x
        type_ = TensorType(dtype, x.tensor.shape)
        return self.emit("aten._to_copy", type_, x, dtype=DType(dtype))

    def view(self, x: Value, *shape: int) -> Value:
        """The elements of `x` in another shape."""
        return self.emit("aten.view", TensorType(x.tensor.dtype, shape), x, shape)
