"""What is known of the tensors of a step: the value of each, what it shares memory with."""

from typing import Any
from weakref import ref

import torch
from torch import Tensor

from supernode.capture import compat
from supernode.capture.aliases import Derivation, Memory, View, read
from supernode.capture.draws import Draws
from supernode.capture.sites import user_line
from supernode.capture.tape import KwArgs, Tape
from supernode.errors import CaptureError
from supernode.ir import Arg, DType, TensorType, Value
from supernode.ir.types import DTYPE_BYTES

# A fake carries its view as an attribute, so that it lives and dies with it.
_VIEW = "_supernode_view"
_OUTSIDE = "a tensor that is neither of the model nor made by the step"


class Tensors:
    """The views of all fake tensors, on one tape.

    `constants` holds the real tensors met on the way, with the values that stand for them;
    `scalars` those of one number, which became plain constants.
    """

    def __init__(self, mode: Any, tape: Tape) -> None:
        self.tape = tape
        self.draws = Draws(tape)
        self.constants: list[tuple[Value, Tensor]] = []
        self.scalars: list[Tensor] = []
        self._mode = mode
        self._fakes: dict[int, Tensor] = {}
        self._made: list[ref[Tensor]] = []
        self._types: dict[tuple[torch.dtype, torch.Size], TensorType] = {}

    def register(self, fake: Tensor, read_only: str = "") -> Value:
        """Makes a fake tensor an input of the step; `read_only` says why it may not be written."""
        value = self.tape.value(self.type_of(fake))
        self.own(fake, value, read_only=read_only)
        return value

    def own(
        self, fake: Tensor, value: Value, fill: float | None = None, read_only: str = ""
    ) -> None:
        """Notes a fake tensor with memory of its own."""
        memory = Memory(
            key=compat.storage_key(fake),
            storage=fake.untyped_storage(),
            fill=fill,
            read_only=read_only,
        )
        self.share(fake, View(memory=memory, value=value, version=0))

    def derive(
        self, name: str, source: View, args: tuple[Arg, ...], kwargs: KwArgs, out: list[Tensor]
    ) -> None:
        """Records the view op `name` of `source` and notes its results."""
        types = tuple(self.type_of(each) for each in out)
        values = self.tape.emit(name, args, kwargs, types)
        for index, (tensor, value) in enumerate(zip(out, values, strict=True)):
            how = Derivation(name=name, args=args[1:], kwargs=kwargs, types=types, index=index)
            view = View(
                memory=source.memory,
                value=value,
                version=source.memory.version,
                parent=source,
                derivation=how,
            )
            self.share(tensor, view)

    def share(self, fake: Tensor, view: View) -> None:
        """Notes what a tensor object shows."""
        setattr(fake, _VIEW, view)
        self._made.append(ref(fake))

    def view_of(self, tensor: Tensor) -> View:
        """What is known of a fake or real tensor; a real one becomes a constant."""
        view: View | None = getattr(tensor, _VIEW, None)
        if view is None:
            if isinstance(tensor, compat.FakeTensor):
                raise CaptureError(
                    "a tensor enters the step that was made while nobody recorded: in another "
                    "thread or another capture",
                    where=user_line(),
                    fix="make it in the step, or pass it as an argument",
                )
            return getattr(self._constant(tensor), _VIEW)
        if view.memory.key != compat.storage_key(tensor):
            raise CaptureError(
                "the data of a tensor was replaced (`x.data = y`)",
                where=user_line(),
                fix="copy into it (`x.copy_(y)` under torch.no_grad())",
            )
        return view

    def constant(self, tensor: Tensor) -> Tensor:
        """The fake for a real tensor that the step made of constants, and may write."""
        fake = self._constant(tensor)
        self.view_of(fake).memory.read_only = ""
        return fake

    def value_of(self, tensor: Tensor) -> Value:
        """The current value of a tensor."""
        return read(self.view_of(tensor), self.tape)

    def type_of(self, tensor: Tensor) -> TensorType:
        """Its type in the Program."""
        key = (tensor.dtype, tensor.shape)
        known = self._types.get(key)
        if known is None:
            name = dtype_of(tensor.dtype).name
            if name not in DTYPE_BYTES:
                raise CaptureError(
                    f"the step holds a tensor of dtype {name}, which a Program can't",
                    where=user_line(),
                    fix=f"convert it (.to) to one of {', '.join(DTYPE_BYTES)}",
                )
            known = TensorType(name, tuple(tensor.shape))
            self._types[key] = known
        return known

    def fake_of(self, tensor: Tensor) -> Tensor:
        """The fake that stands for a tensor that `view_of` has seen: itself, or its double."""
        return tensor if isinstance(tensor, compat.FakeTensor) else self._fakes[id(tensor)]

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a real tensor was read as a constant."""
        return id(tensor) in self._fakes

    def constant_tensors(self) -> list[Tensor]:
        """The real tensors whose present content the step holds."""
        return [*(tensor for _, tensor in self.constants), *self.scalars]

    def alive(self) -> list[Tensor]:
        """The fakes that the step has made and somebody still holds."""
        ours = {id(fake) for fake in self._fakes.values()}
        # What was the fake of a parameter is the parameter again.
        held = {
            id(fake): fake
            for made in self._made
            if isinstance(fake := made(), compat.FakeTensor) and id(fake) not in ours
        }
        return [*held.values()]

    def memories(self) -> list[View]:
        """All memory that somebody still holds a tensor of, as the whole of it."""
        roots: dict[int, View] = {}
        for made in self._made:
            view: View | None = getattr(made(), _VIEW, None)
            while view is not None and view.parent is not None:
                view = view.parent
            if view is not None:
                roots[id(view.memory)] = view
        return [*roots.values()]

    def is_unknown(self, tensor: Any) -> bool:
        """Whether a tensor depends on inputs, so that no branch can be taken on it."""
        if not isinstance(tensor, compat.FakeTensor):
            return False
        return self.tape.fixed_cone(self.value_of(tensor)) is None

    def _constant(self, tensor: Tensor) -> Tensor:
        fake = self._fakes.get(id(tensor))
        if fake is not None:
            return fake
        if tensor.requires_grad and torch.is_grad_enabled():
            raise CaptureError(
                f"the step differentiates a tensor of shape {list(tensor.shape)} that is neither "
                "a parameter of the model nor an argument",
                where=user_line(),
                fix="make it part of the model (nn.ModuleList([a, b])) or an argument; "
                ".requires_grad_(False) if it is not trained",
            )
        fake = compat.fake_like(self._mode, tensor.detach())
        self._fakes[id(tensor)] = fake
        if tensor.dim() == 0 and not tensor.is_meta and not tensor.is_complex():
            # Kept, so that its id stays its own.
            self.scalars.append(tensor)
            fill = compat.number_of(tensor)
            kwargs: KwArgs = (("dtype", dtype_of(tensor.dtype)),)
            (value,) = self.tape.emit("aten.scalar_tensor", (fill,), kwargs, (self.type_of(fake),))
            self.own(fake, value, fill, read_only=_OUTSIDE)
            return fake
        value = self.register(fake, read_only=_OUTSIDE)
        self.constants.append((value, tensor))
        return fake


def dtype_of(dtype: torch.dtype) -> DType:
    """A dtype as an argument of an op."""
    return DType(str(dtype).removeprefix("torch."))
