"""How ops that write nothing are recorded."""

from typing import Any

import torch
from torch import Tensor

from supernode.capture import compat
from supernode.capture.call import Call, depends_on_data, flat, flat_tensors
from supernode.capture.checks import Check, check
from supernode.capture.fixed import fixed_number, fixed_tensor, with_fixed
from supernode.capture.functional import FILL_ARGUMENT, FILLS
from supernode.capture.host import HostFloat, HostLedger, HostNode, host_node
from supernode.capture.sites import user_line
from supernode.errors import CaptureError
from supernode.ir import HostType, Type, Value
from supernode.kernels import is_dense

_SIZED = ("aten.arange", "aten.range")
"""Ops whose numbers decide how large the result is."""

_COPIES = ("aten._to_copy", "aten.lift_fresh_copy")


def functional(call: Call) -> Any:
    """An op whose results have memory of their own."""
    tensors, name = call.tensors, call.info.name
    args, kwargs = call.lowered()
    if name.startswith(_SIZED) and any(host_node(arg) is not None for arg in call.args):
        raise depends_on_data(name)
    out = call.run()
    if name in _COPIES and not kwargs and is_dense(call.args[0]):
        assert isinstance(args[0], Value)
        tensors.own(out, args[0])
        return out
    # Optional results that were not asked for are None, and not listed.
    results = [each for each in flat(out) if each is not None]
    types = tuple(_type_of(each, call) for each in results)
    values = call.record(name, args, kwargs, types)
    fill = _fill(call)
    for tensor, value in zip(results, values, strict=True):
        if isinstance(tensor, Tensor):
            tensors.own(tensor, value, fill)
    return out


def _type_of(result: Any, call: Call) -> Type:
    if isinstance(result, Tensor):
        return call.tensors.type_of(result)
    return HostType("float64" if isinstance(result, float) else "int64")


def _fill(call: Call) -> float | None:
    """The number that all of the result is, where that is known."""
    name = call.info.name
    if name in FILLS:
        return FILLS[name]
    if name in FILL_ARGUMENT:
        number = call.args[FILL_ARGUMENT[name]]
        return number if isinstance(number, int | float) else None
    if name in ("aten.clone", "aten._to_copy"):
        memory = call.tensors.view_of(call.args[0]).memory
        return None if memory.version else memory.fill
    return None


def query(call: Call) -> Any:
    """An op that computes nothing."""
    return call.func(*call.args, **call.kwargs)


def alias(call: Call) -> Any:
    """An op that gives the same elements at the same place: no op of the Program."""
    (source,) = call.args
    view = call.tensors.view_of(source)
    if not isinstance(source, compat.FakeTensor) and call.info.name == "aten.lift_fresh":
        view.memory.read_only = ""  # the literal of a torch.tensor(...), which nobody else has
    out = call.func(call.tensors.fake_of(source), **call.kwargs)
    call.tensors.share(out, view)
    return out


def view(call: Call) -> Any:
    """An op that shows elements of a tensor at their place."""
    args, kwargs = call.lowered()
    source = call.tensors.view_of(call.args[0])
    whole = source.parent is None and call.args[0].is_contiguous()
    if call.info.name == "aten.as_strided" and not whole:
        # It counts from the start of the memory.
        raise CaptureError("as_strided of a view", where=user_line(), fix="view a copy of it")
    out = call.run()
    call.tensors.derive(call.info.name, source, args, kwargs, flat(out))
    return out


def item(call: Call, ledger: HostLedger) -> Any:
    """The number in a tensor: now where it is known, else when the step runs."""
    (tensor,) = call.args
    if not isinstance(tensor, compat.FakeTensor):
        call.tensors.view_of(tensor)  # a change of it will be noticed
        return compat.number_of(tensor)
    tape = call.tensors.tape
    source = call.tensors.value_of(tensor)
    number = fixed_number(tape, source, call.tensors.constants)
    if number is not None:
        return number
    dtype = "float64" if tensor.is_floating_point() else source.tensor.dtype
    (value,) = tape.emit(call.info.name, (source,), (), (HostType(dtype),))
    return HostFloat(HostNode(ledger, value, None, source))


def checked(call: Call, checks: list[Check]) -> None:
    """An op that only raises where its tensor is zero: noted, and looked at after each run."""
    (tensor, *message) = call.args
    checks.append(check(call.tensors.value_of(tensor), *message or ("",)))


def on_constants(call: Call) -> Any:
    """What an op whose shape depends on data gives of constants: constants; else None."""
    tensors = call.tensors
    fixed: dict[int, Tensor] = {}
    for arg in flat_tensors((call.args, call.kwargs)):
        real = fixed_tensor(tensors.tape, tensors.value_of(arg), tensors.constants)
        if real is None:
            return None
        fixed[id(arg)] = real
    with compat.real_tensors():
        kwargs = {key: with_fixed(arg, fixed) for key, arg in call.kwargs.items()}
        out = call.func(*with_fixed(call.args, fixed), **kwargs)
    if not isinstance(out, Tensor | tuple | list):
        return out
    results = [tensors.constant(each) for each in flat(out)]
    return results[0] if isinstance(out, Tensor) else tuple(results)


def composite(call: Call) -> Any:
    """An op that is made of others, which are recorded."""
    with call.recording:
        return compat.decompose(call.func, call.args, call.kwargs)


def foreach(call: Call) -> Any:
    """An op over lists of tensors, which are recorded one by one."""
    with call.recording:
        return compat.run_slow_path(call.func, call.args, call.kwargs)


def grouped_mm(call: Call) -> Any:
    """`_grouped_mm`, whose kernel takes what its fake refuses: other dtypes than bfloat16."""
    args, kwargs = call.lowered()
    a, b, *rest = (call.faked(arg) for arg in call.args)
    like = call.func(a.bfloat16(), b.bfloat16(), *rest, **call.kwargs)
    out = torch.empty_strided(like.shape, like.stride(), dtype=a.dtype, device=like.device)
    type_ = call.tensors.type_of(out)
    (value,) = call.tensors.tape.emit(call.info.name, args, kwargs, (type_,))
    call.tensors.own(out, value)
    return out
