"""Which tensors share memory: one current value per memory, views derived from it when read.

A Program has no mutation. A write through a view becomes a write of the whole memory (the inverse
of each view, up to its base); the other views of that memory are derived anew when next read.
"""

from collections.abc import Callable
from dataclasses import dataclass

from supernode.capture.sites import user_line
from supernode.capture.tape import KwArgs, Tape
from supernode.errors import CaptureError
from supernode.ir import Arg, Type, Value

_NEVER = -1


@dataclass(slots=True, eq=False, kw_only=True)
class Memory:
    """What tensors that share a storage have in common.

    `version` counts the writes. `fill` is the number all of it was created with, where it was.
    `read_only` says why it may not be written ("" where it may).
    """

    key: int
    storage: object
    version: int = 0
    fill: float | None = None
    read_only: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Derivation:
    """The view op that made a view: arguments behind the viewed tensor, types of all results."""

    name: str
    args: tuple[Arg, ...]
    kwargs: KwArgs
    types: tuple[Type, ...]
    index: int


@dataclass(slots=True, eq=False, kw_only=True)
class View:
    """A tensor: a whole memory (no parent), or what a view op gives of another view."""

    memory: Memory
    value: Value
    version: int
    parent: "View | None" = None
    derivation: Derivation | None = None


def read(view: View, tape: Tape) -> Value:
    """The current value of a view; derived again where its memory was written since."""
    if view.version == view.memory.version:
        return view.value
    parent, how = view.parent, view.derivation
    assert parent is not None
    assert how is not None
    source = read(parent, tape)
    values = tape.emit(how.name, (source, *how.args), how.kwargs, how.types)
    view.value = values[how.index]
    view.version = view.memory.version
    return view.value


def write(view: View, new: Value, tape: Tape, *, dense: bool = True) -> None:
    """Makes `new` the value of a view and puts it in place in all that it is a view of.

    A view that is not `dense` is derived anew when read: its gaps decide in which order a sum
    runs over it, and so its last bits.
    """
    memory = view.memory
    if memory.read_only:
        raise CaptureError(
            f"the step writes into {memory.read_only}",
            where=user_line(),
            fix="make it a buffer of the model, or write into a copy (`.clone()`)",
        )
    chain: list[tuple[View, Value]] = []
    inner: View = view
    while inner.parent is not None:
        whole = read(inner.parent, tape)
        chain.append((inner.parent, whole))
        inner = inner.parent
    memory.version += 1
    view.value = new
    view.version = memory.version if dense or view.parent is None else _NEVER
    inner = view
    for parent, whole in chain:
        new = put_back(inner, whole, new, tape)
        parent.value, parent.version = new, memory.version
        inner = parent


Inverse = Callable[[Derivation, Value, Value, Tape], Value]


def put_back(view: View, whole: Value, part: Value, tape: Tape) -> Value:
    """`whole` with the part that `view` shows replaced by `part`."""
    how = view.derivation
    assert how is not None
    inverse = INVERSES.get(how.name)
    if inverse is None:
        raise CaptureError(
            f"the step writes into the result of {how.name}, which can't be undone",
            where=user_line(),
            fix="write into the tensor itself, or into a copy (`.clone()`)",
        )
    return inverse(how, whole, part, tape)


def _scatter(name: str) -> Inverse:
    def inverse(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
        (value,) = tape.emit(name, (whole, part, *how.args), how.kwargs, (whole.type,))
        return value

    return inverse


def _reshape(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
    (value,) = tape.emit("aten.view", (part, whole.tensor.shape), (), (whole.type,))
    return value


def _reinterpret(name: str) -> Inverse:
    def inverse(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
        (value,) = tape.emit(name, (part,), (), (whole.type,))
        return value

    return inverse


def _same_dims(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
    (value,) = tape.emit(how.name, (part, *how.args), (), (whole.type,))
    return value


def _permute(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
    dims = how.args[0]
    assert isinstance(dims, tuple)
    rank = len(dims)
    forward = [int(dim) % rank for dim in dims]  # type: ignore[arg-type]
    back = tuple(forward.index(dim) for dim in range(rank))
    (value,) = tape.emit("aten.permute", (part, back), (), (whole.type,))
    return value


def _expand(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
    if part.tensor.numel != whole.tensor.numel:
        raise CaptureError(
            "the step writes into an expanded tensor, whose elements share memory",
            where=user_line(),
            fix="write into a copy (`.clone()`)",
        )
    return _reshape(how, whole, part, tape)


def _split(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
    dim = how.args[1] if len(how.args) > 1 else 0
    assert isinstance(dim, int)
    sizes = [type_.shape[dim] for type_ in how.types]  # type: ignore[union-attr]
    start = sum(sizes[: how.index])
    args = (whole, part, dim, start, start + sizes[how.index])
    (value,) = tape.emit("aten.slice_scatter", args, (), (whole.type,))
    return value


def _unbind(how: Derivation, whole: Value, part: Value, tape: Tape) -> Value:
    args = (whole, part, how.args[0] if how.args else 0, how.index)
    (value,) = tape.emit("aten.select_scatter", args, (), (whole.type,))
    return value


INVERSES: dict[str, Inverse] = {
    "aten.slice.Tensor": _scatter("aten.slice_scatter"),
    "aten.select.int": _scatter("aten.select_scatter"),
    "aten.diagonal": _scatter("aten.diagonal_scatter"),
    "aten.as_strided": _scatter("aten.as_strided_scatter"),
    "aten.view": _reshape,
    "aten._reshape_alias": _reshape,
    "aten.unsqueeze": _reshape,
    "aten.squeeze": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
    "aten.t": _same_dims,
    "aten.transpose.int": _same_dims,
    "aten.permute": _permute,
    "aten.expand": _expand,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes": _split,
    "aten.unbind.int": _unbind,
    "aten.view_as_real": _reinterpret("aten.view_as_complex"),
    "aten.view_as_complex": _reinterpret("aten.view_as_real"),
}
"""How to put a written view back into what it is a view of, by the name of the view op."""
