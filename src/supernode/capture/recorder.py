"""The recorder: sees every ATen op of a step and writes it down as an op without mutation."""

from typing import Any

import torch
from torch import Tensor

from supernode.capture import compat
from supernode.capture.aliases import Derivation, Memory, View, read, write
from supernode.capture.compat import OpOverload, TorchDispatchMode
from supernode.capture.fixed import fixed_number
from supernode.capture.functional import FILL_ARGUMENT, FILLS, Kind, OpInfo, describe
from supernode.capture.host import HostFloat, HostLedger, HostNode, host_node
from supernode.capture.sites import Sites, user_line
from supernode.capture.tape import KwArgs, Tape
from supernode.errors import CaptureError
from supernode.ir import Arg, DType, HostType, TensorType, Type, Value

_VIEW = "_supernode_view"
_CPU = torch.device("cpu")
_DROPPED = frozenset({"device", "layout", "pin_memory", "non_blocking", "generator"})
_OUTSIDE = "a tensor that is neither of the model nor made by the step"
_SHAPE_FIX = "keep shapes fixed: use torch.where or a multiplication by the mask"


class Recorder(TorchDispatchMode):
    """Runs a step on fake tensors and records it on `tape`.

    `constants` holds the real tensors met on the way, with the values that stand for them;
    `scalars` those of one number, which became plain constants.
    """

    def __init__(self, mode: Any, sites: Sites) -> None:
        super().__init__()
        self.tape = Tape(sites.here)
        self.host = HostLedger(self.tape)
        self.constants: list[tuple[Value, Tensor]] = []
        self.scalars: list[Tensor] = []
        self._mode = mode
        self._fakes: dict[int, Tensor] = {}
        self._types: dict[tuple[torch.dtype, torch.Size], TensorType] = {}
        self._replaced = False

    # What is known of a tensor

    def register(self, fake: Tensor, read_only: str = "") -> Value:
        """Makes a fake tensor an input of the step."""
        value = self.tape.value(self.type_of(fake))
        self._own(fake, value, read_only=read_only)
        return value

    def view_of(self, tensor: Tensor) -> View:
        """What is known of a fake or real tensor; a real one becomes a constant."""
        view: View | None = getattr(tensor, _VIEW, None)
        if view is None:
            if isinstance(tensor, compat.FakeTensor):
                raise CaptureError("a tensor of another capture enters the step", where=user_line())
            return getattr(self._constant(tensor), _VIEW)
        if view.memory.key != compat.storage_key(tensor):
            raise CaptureError(
                "the data of a tensor was replaced (`x.data = y`)",
                where=user_line(),
                fix="copy into it (`x.copy_(y)` under torch.no_grad())",
            )
        return view

    def value_of(self, tensor: Tensor) -> Value:
        """The current value of a tensor."""
        return read(self.view_of(tensor), self.tape)

    def type_of(self, tensor: Tensor) -> TensorType:
        key = (tensor.dtype, tensor.shape)
        known = self._types.get(key)
        if known is None:
            known = TensorType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            self._types[key] = known
        return known

    def _own(
        self, tensor: Tensor, value: Value, fill: float | None = None, read_only: str = ""
    ) -> View:
        storage = tensor.untyped_storage()
        memory = Memory(key=storage._cdata, storage=storage, fill=fill, read_only=read_only)
        view = View(memory=memory, value=value, version=0)
        setattr(tensor, _VIEW, view)
        return view

    def _constant(self, tensor: Tensor) -> Tensor:
        fake = self._fakes.get(id(tensor))
        if fake is not None:
            return fake
        if tensor.requires_grad and torch.is_grad_enabled():
            raise CaptureError(
                f"the step differentiates a tensor of shape {tuple(tensor.shape)} that is neither "
                "a parameter of the model nor an argument",
                where=user_line(),
                fix="pass all trained modules as one model (nn.ModuleList), tensors as arguments",
            )
        fake = compat.fake_like(self._mode, tensor.detach())
        self._fakes[id(tensor)] = fake
        if tensor.dim() == 0 and not tensor.is_meta and not tensor.is_complex():
            fill = compat.number_of(tensor)
            kwargs: KwArgs = (("dtype", _dtype(tensor.dtype)),)
            (value,) = self.tape.emit("aten.scalar_tensor", (fill,), kwargs, (self.type_of(fake),))
            self._own(fake, value, fill, read_only=_OUTSIDE)
            self.scalars.append(tensor)
            return fake
        value = self.register(fake, read_only=_OUTSIDE)
        self.constants.append((value, tensor))
        return fake

    def constant_tensors(self) -> list[Tensor]:
        """The real tensors whose present content the step holds."""
        return [*(tensor for _, tensor in self.constants), *self.scalars]

    def knows(self, tensor: Tensor) -> bool:
        """Whether a real tensor was read as a constant."""
        return id(tensor) in self._fakes

    # Arguments

    def _lower(self, arg: Any) -> Arg:
        if isinstance(arg, Tensor):
            if not isinstance(arg, compat.FakeTensor):
                self._replaced = True
            return self.value_of(arg)
        if arg is None or isinstance(arg, bool | int | float | str):
            return arg
        if isinstance(arg, list | tuple):
            return tuple([self._lower(item) for item in arg])
        node = host_node(arg)
        if node is not None:
            self._replaced = True
            return node.value
        if isinstance(arg, torch.dtype):
            return _dtype(arg)
        if isinstance(arg, torch.memory_format):
            return str(arg).removeprefix("torch.")
        raise CaptureError(f"an argument of type {type(arg).__name__}", where=user_line())

    def _lower_kwargs(self, kwargs: dict[str, Any]) -> KwArgs:
        if kwargs.get("generator") is not None:
            raise CaptureError(
                "a generator of its own draws the random numbers",
                where=user_line(),
                fix="use the default generator (torch.manual_seed)",
            )
        return tuple(
            (key, self._lower(arg))
            for key, arg in kwargs.items()
            if arg is not None and key not in _DROPPED
        )

    def _faked(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return arg if isinstance(arg, compat.FakeTensor) else self._fakes[id(arg)]
        if isinstance(arg, list | tuple):
            return [self._faked(item) for item in arg]
        return 0.5 if isinstance(arg, torch.SymFloat) else arg

    # Ops

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _CPU}
        if not isinstance(func, OpOverload):
            raise CaptureError(f"higher-order op {func} can't be recorded", where=user_line())
        info = describe(func)
        try:
            return _HANDLERS[info.kind](self, func, info, args, kwargs)
        except compat.UNSUPPORTED as error:
            raise CaptureError(
                f"{info.name}: the shape or path depends on data ({type(error).__name__})",
                where=user_line(),
                fix=_SHAPE_FIX,
            ) from error

    def _run(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """The op on fakes, with what was found to be real or symbolic replaced."""
        if self._replaced:
            args = tuple(self._faked(arg) for arg in args)
            kwargs = {key: self._faked(arg) for key, arg in kwargs.items()}
        return func(*args, **kwargs)

    def _lowered(self, args: Any, kwargs: dict[str, Any]) -> tuple[tuple[Arg, ...], KwArgs]:
        self._replaced = False
        return tuple([self._lower(arg) for arg in args]), self._lower_kwargs(kwargs)

    def _functional(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        ir_args, ir_kwargs = self._lowered(args, kwargs)
        out = self._run(func, args, kwargs)
        # Optional results that were not asked for are None, and not listed.
        flat = [each for each in _flat(out) if each is not None]
        if info.name in ("aten._to_copy", "aten.lift_fresh_copy") and not ir_kwargs:
            assert isinstance(ir_args[0], Value)
            self._own(out, ir_args[0])
            return out
        types = tuple(self._type_of_result(each) for each in flat)
        values = self.tape.emit(info.name, ir_args, ir_kwargs, types, random=info.random)
        fill = self._fill(info.name, args)
        for tensor, value in zip(flat, values, strict=True):
            if isinstance(tensor, Tensor):
                self._own(tensor, value, fill)
        return out

    def _type_of_result(self, result: Any) -> Type:
        if isinstance(result, Tensor):
            return self.type_of(result)
        return HostType("float64" if isinstance(result, float) else "int64")

    def _fill(self, name: str, args: Any) -> float | None:
        if name in FILLS:
            return FILLS[name]
        if name in FILL_ARGUMENT:
            number = args[FILL_ARGUMENT[name]]
            return number if isinstance(number, int | float) else None
        if name in ("aten.clone", "aten._to_copy", "aten.detach_copy"):
            memory = self.view_of(args[0]).memory
            return None if memory.version else memory.fill
        return None

    def _query(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def _alias(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        (source,) = args
        view = self.view_of(source)
        if not isinstance(source, compat.FakeTensor) and info.name == "aten.lift_fresh":
            view.memory.read_only = ""  # the literal of a torch.tensor(...), which nobody else has
        out = func(self._faked(source), **kwargs)
        setattr(out, _VIEW, view)
        return out

    def _view(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        ir_args, ir_kwargs = self._lowered(args, kwargs)
        if info.name == "aten.as_strided":
            self._check_strided(args[0])
        out = self._run(func, args, kwargs)
        self._derive(info.name, args[0], ir_args, ir_kwargs, _flat(out))
        return out

    def _derive(
        self, name: str, source: Tensor, args: tuple[Arg, ...], kwargs: KwArgs, out: list[Tensor]
    ) -> None:
        parent = self.view_of(source)
        types = tuple(self.type_of(each) for each in out)
        values = self.tape.emit(name, args, kwargs, types)
        for index, (tensor, value) in enumerate(zip(out, values, strict=True)):
            how = Derivation(name=name, args=args[1:], kwargs=kwargs, types=types, index=index)
            view = View(
                memory=parent.memory,
                value=value,
                version=parent.memory.version,
                parent=parent,
                derivation=how,
            )
            setattr(tensor, _VIEW, view)

    def _check_strided(self, tensor: Tensor) -> None:
        if self.view_of(tensor).parent is not None or not tensor.is_contiguous():
            raise CaptureError("as_strided of a view", where=user_line(), fix="view a copy of it")

    def _item(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        (tensor,) = args
        if not isinstance(tensor, compat.FakeTensor):
            return compat.number_of(tensor)
        source = self.value_of(tensor)
        number = fixed_number(self.tape, source)
        if number is not None:
            return number
        dtype = "float64" if tensor.is_floating_point() else source.tensor.dtype
        (value,) = self.tape.emit(info.name, (source,), (), (HostType(dtype),))
        return HostFloat(HostNode(self.host, value, None, source))

    def is_unknown(self, tensor: Any) -> bool:
        """Whether a tensor depends on inputs, so that no branch can be taken on it."""
        if not isinstance(tensor, compat.FakeTensor):
            return False
        return self.tape.fixed_cone(self.value_of(tensor)) is None

    def _grouped_mm(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        # Its kernel takes what its fake refuses: other dtypes than bfloat16.
        ir_args, ir_kwargs = self._lowered(args, kwargs)
        a, b, *rest = (self._faked(arg) for arg in args)
        like = func(a.bfloat16(), b.bfloat16(), *rest, **kwargs)
        out = torch.empty_strided(like.shape, like.stride(), dtype=a.dtype, device=_CPU)
        (value,) = self.tape.emit(info.name, ir_args, ir_kwargs, (self.type_of(out),))
        self._own(out, value)
        return out

    def _composite(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        with self:
            return compat.decompose(func, args, kwargs)

    def _foreach(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        with self:
            return compat.run_slow_path(func, args, kwargs)

    # Mutation

    def _inplace(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        target: Tensor = args[0]
        if info.name == "aten.bernoulli_.float" and not target.is_contiguous():
            return self._bernoulli(target, *args[1:])
        view = self.view_of(target)
        ir_args, ir_kwargs = self._lowered(args, kwargs)
        if not _fits(target, args):
            self._run(func, args, kwargs)
        functional = info.functional
        assert functional is not None
        self_type = self.type_of(target)
        type_ = self_type
        if info.changes_dtype or not _same_dtype(target, args):
            type_ = self.type_of(self._run(functional, args, kwargs))
        name = compat.op_name(functional)
        (new,) = self.tape.emit(name, ir_args, ir_kwargs, (type_,), random=info.random)
        write(view, self._cast(new, self_type), self.tape)
        return target

    def _bernoulli(self, target: Tensor, probability: float = 0.5) -> Tensor:
        """Draws in the order of memory, as in place; its functional form is always contiguous."""
        order = sorted(range(target.dim()), key=target.stride, reverse=True)
        with self:
            straight = target.permute(order)
            if not straight.is_contiguous():
                raise CaptureError(
                    "bernoulli_ of a tensor with gaps",
                    where=user_line(),
                    fix="draw into a tensor of its own and copy it",
                )
            straight.bernoulli_(probability)
        return target

    def _cast(self, value: Value, type_: TensorType) -> Value:
        if value.type == type_:
            return value
        kwargs: KwArgs = (("dtype", DType(type_.dtype)),)
        (value,) = self.tape.emit("aten._to_copy", (value,), kwargs, (type_,))
        return value

    def _copy(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        target, source = args[0], args[1]
        (old, new, *_), _ = self._lowered(args, {})
        view = self.view_of(target)
        assert isinstance(old, Value)
        if isinstance(source, Tensor) and isinstance(new, Value):
            source = self._faked(source)
            if source.shape == target.shape and source.stride() == target.stride():
                write(view, self._cast(new, old.tensor), self.tape)
                return target
        if not _fits(target, args):
            self._run(func, args, kwargs)
        name = "aten.copy" if isinstance(source, Tensor) else "aten.full_like"
        (new,) = self.tape.emit(name, (old, new), (), (old.type,))
        write(view, new, self.tape)
        return target

    def _out(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        if info.functional is None:
            return self._refused(func, info, args, kwargs)
        targets: list[Tensor] = [kwargs[name] for name in info.written]
        rest = {key: arg for key, arg in kwargs.items() if key not in info.written}
        with self:
            out = info.functional(*args, **rest)
            for target, result in zip(targets, _flat(out), strict=True):
                if target.shape != result.shape:
                    raise CaptureError(f"{info.name} resizes its result", where=user_line())
                target.copy_(result)
        return targets[0] if len(targets) == 1 else tuple(targets)

    def _reshapes_self(
        self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        if info.functional is None:
            return self._refused(func, info, args, kwargs)
        target: Tensor = args[0]
        ir_args, ir_kwargs = self._lowered(args, kwargs)
        parent = self.view_of(target)
        out = func(*args, **kwargs)
        setattr(target, _VIEW, parent)
        self._derive(compat.op_name(info.functional), target, ir_args, ir_kwargs, [target])
        return out

    def _batch_norm(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        mean, variance, training = args[3], args[4], args[5]
        if not training or mean is None:
            return self._functional(func, info, args, kwargs)
        ir_args, ir_kwargs = self._lowered(args, kwargs)
        out = self._run(func, args, kwargs)
        types = tuple(self.type_of(each) for each in (*out, mean, variance))
        name = "aten._native_batch_norm_legit_functional"
        values = self.tape.emit(name, ir_args, ir_kwargs, types)
        for tensor, value in zip(out, values, strict=False):
            self._own(tensor, value)
        write(self.view_of(mean), values[3], self.tape)
        write(self.view_of(variance), values[4], self.tape)
        return out

    def _refused(self, func: OpOverload, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        raise CaptureError(
            f"{info.name} has no form without mutation",
            where=user_line(),
            fix="write the step with ordinary tensor operations",
        )


_HANDLERS = {
    Kind.FUNCTIONAL: Recorder._functional,
    Kind.QUERY: Recorder._query,
    Kind.ALIAS: Recorder._alias,
    Kind.VIEW: Recorder._view,
    Kind.INPLACE: Recorder._inplace,
    Kind.OUT: Recorder._out,
    Kind.ITEM: Recorder._item,
    Kind.COMPOSITE: Recorder._composite,
    Kind.FOREACH: Recorder._foreach,
    Kind.COPY: Recorder._copy,
    Kind.BATCH_NORM: Recorder._batch_norm,
    Kind.GROUPED_MM: Recorder._grouped_mm,
    Kind.RESHAPES_SELF: Recorder._reshapes_self,
    Kind.REFUSED: Recorder._refused,
}


def _dtype(dtype: torch.dtype) -> DType:
    return DType(str(dtype).removeprefix("torch."))


def _flat(out: Any) -> list[Any]:
    return list(out) if isinstance(out, list | tuple) else [out]


def _fits(target: Tensor, args: Any) -> bool:
    """Whether torch would surely accept the shapes, so that the op need not run on fakes."""
    shape = target.shape
    return all(arg.shape == shape or arg.dim() == 0 for arg in args if isinstance(arg, Tensor))


def _same_dtype(target: Tensor, args: Any) -> bool:
    dtype = target.dtype
    return all(arg.dtype == dtype for arg in args if isinstance(arg, Tensor))
