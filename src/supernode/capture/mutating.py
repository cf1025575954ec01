"""How ops that write are recorded: as what they compute, put in place of what was there."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from supernode.capture import compat
from supernode.capture.aliases import write
from supernode.capture.call import Call, flat, refuse
from supernode.capture.tape import KwArgs
from supernode.errors import CaptureError
from supernode.ir import DType, TensorType, Value
from supernode.kernels import is_dense


def in_place(call: Call) -> Any:
    """An op like `add_`."""
    target: Tensor = call.args[0]
    functional = call.info.functional
    assert functional is not None
    tensors = call.tensors
    view = tensors.view_of(target)
    args, kwargs = call.lowered()
    args += tuple(default for position, default in call.info.defaults if position >= len(args))
    if not _fits(target, call):
        call.run()
    own_type = type_ = tensors.type_of(target)
    if call.info.changes_dtype or any(arg.dtype != target.dtype for arg in call.tensor_args()):
        type_ = tensors.type_of(call.run(functional))
    name = compat.op_name(functional)
    (new,) = call.record(name, args, kwargs, (type_,))
    new = _cast(call, new, own_type)
    dense = is_dense(target)
    if dense and not target.is_contiguous() and call.run(functional).stride() != target.stride():
        # Written in place it would keep the strides of what was there.
        (new,) = tensors.tape.emit("aten.copy", (tensors.value_of(target), new), (), (own_type,))
    write(view, new, tensors.tape, dense=dense)
    return target


def _fits(target: Tensor, call: Call) -> bool:
    """Whether torch would surely accept the shapes, so that the op need not run on fakes."""
    return all(arg.shape == target.shape or arg.dim() == 0 for arg in call.tensor_args())


def _cast(call: Call, value: Value, type_: TensorType) -> Value:
    if value.type == type_:
        return value
    kwargs: KwArgs = (("dtype", DType(type_.dtype)),)
    (value,) = call.tensors.tape.emit("aten._to_copy", (value,), kwargs, (type_,))
    return value


def copy(call: Call) -> Any:
    """`copy_`: no op at all where the source could as well take the place of the target."""
    target, source = call.args[0], call.args[1]
    (old, new, *_), _ = call.lowered()
    assert isinstance(old, Value)
    tensors = call.tensors
    view, dense = tensors.view_of(target), is_dense(target)
    if isinstance(source, Tensor) and isinstance(new, Value):
        like = tensors.fake_of(source)
        if like.shape == target.shape and like.stride() == target.stride():
            write(view, _cast(call, new, old.tensor), tensors.tape, dense=dense)
            return target
    if not _fits(target, call):
        call.run()
    name = "aten.copy" if isinstance(source, Tensor) else "aten.full_like"
    (value,) = tensors.tape.emit(name, (old, new), (), (old.type,))
    write(view, value, tensors.tape, dense=dense)
    return target


def out(call: Call) -> Any:
    """An op that writes its results into given tensors."""
    info = call.info
    if info.functional is None:
        return refuse(call)
    targets: list[Tensor] = [call.kwargs[name] for name in info.written]
    rest = {key: arg for key, arg in call.kwargs.items() if key not in info.written}
    with call.recording:
        results = flat(info.functional(*call.args, **rest))
        for target, result in zip(targets, results, strict=True):
            if target.shape != result.shape:
                raise CaptureError(
                    f"{info.name} resizes its result from {list(target.shape)} to "
                    f"{list(result.shape)}",
                    fix="leave out `out=`, or give it a tensor of that shape",
                )
            target.copy_(result)
    return targets[0] if len(targets) == 1 else tuple(targets)


def reshapes_self(call: Call) -> Any:
    """An op like `t_`: the tensor becomes a view of what it was."""
    if call.info.functional is None:
        return refuse(call)
    args, kwargs = call.lowered()
    source = call.tensors.view_of(call.args[0])
    target = call.func(*call.args, **call.kwargs)
    name = compat.op_name(call.info.functional)
    call.tensors.derive(name, source, args, kwargs, [target])
    return target


def writes_arguments(call: Call, functional: Callable[[Call], Any]) -> Any:
    """An op that writes into arguments besides what it gives, as `native_batch_norm` does."""
    info, tensors = call.info, call.tensors
    assert info.functional is not None
    names = [argument.name for argument in compat.arguments_of(call.func)]
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    written: list[Any] = [given.get(name) for name in info.written]
    if given.get("training") is False or None in written:
        return functional(call)
    args, kwargs = call.lowered()
    out = call.run()
    results = flat(out)
    types = tuple(tensors.type_of(each) for each in (*results, *written))
    name = compat.op_name(info.functional)
    values = call.record(name, args, kwargs, types)
    for tensor, value in zip(results, values, strict=False):
        tensors.own(tensor, value)
    for tensor, value in zip(written, values[len(results) :], strict=True):
        write(tensors.view_of(tensor), value, tensors.tape, dense=is_dense(tensor))
    return out
