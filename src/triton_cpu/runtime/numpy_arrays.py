"""Lets NumPy arrays and scalars be passed to kernels.

Triton asks each argument for its type through one function, which knows torch tensors and Python
numbers. While this backend is in use, arguments it refuses are looked at here.
"""

import inspect
import sys
from typing import Any

from ..errors import ArgumentError

_DTYPES = {
    **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"fp{bits}" for bits in (16, 32, 64)},
    "bool": "i1",
    "bfloat16": "bf16",
    "float8_e5m2": "fp8e5",
    "float8_e4m3fn": "fp8e4nv",
}
ALIGNMENT = 16


def install() -> None:
    """Makes Triton's frontend accept NumPy's types."""
    from triton.runtime import jit

    native = jit.native_specialize_impl
    if getattr(native, "takes_numpy", False):
        return

    def specialize(
        backend: Any, arg: Any, is_const: bool, specialize_value: bool, align: bool
    ) -> Any:
        try:
            return native(backend, arg, is_const, specialize_value, align)
        except (TypeError, KeyError, RuntimeError) as error:
            try:
                return _specialize(native, backend, arg, is_const, specialize_value, align, error)
            except ArgumentError as ours:
                name, where = _asked(arg)
                text = f"{name} {ours.wrong}"
                raise ArgumentError(text, where=where, fix=ours.fix) from None

    specialize.takes_numpy = True  # pyright: ignore[reportFunctionMemberAccess]
    jit.native_specialize_impl = specialize


def _specialize(
    native: Any,
    backend: Any,
    arg: Any,
    is_const: bool,
    specialize_value: bool,
    align: bool,
    error: Exception,
) -> Any:
    """What Triton's own function gives for what it knows; `error` is what it said of `arg`."""
    if isinstance(arg, tuple):
        from triton.runtime import jit

        given = is_const, specialize_value, align
        parts = [jit.native_specialize_impl(backend, each, *given) for each in arg]
        make = getattr(type(arg), "_make", tuple)  # of named tuples
        return make(kind for kind, _ in parts), make(key for _, key in parts)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(arg, numpy.ndarray):
        name = _DTYPES.get(arg.dtype.name)
        if name is None or not arg.dtype.isnative:
            raise _of_unknown_dtype(arg.dtype)
        aligned = align and arg.ctypes.data % ALIGNMENT == 0
        return (f"*{'k' if is_const else ''}{name}", "D" if aligned else "")
    if numpy is not None and isinstance(arg, numpy.generic):
        return native(backend, arg.item(), is_const, specialize_value, align)
    if isinstance(error, KeyError):
        raise _of_unknown_dtype(getattr(arg, "dtype", type(arg).__name__))
    if isinstance(error, RuntimeError):  # torch has no address for it
        raise ArgumentError(f"can't be passed to a kernel: {error}.")
    raise ArgumentError(f"is a {type(arg).__name__}, which a kernel can't take.")


def _of_unknown_dtype(dtype: object) -> ArgumentError:
    return ArgumentError(f"has elements of {dtype}, for which Triton has no type.")


def _asked(arg: Any) -> tuple[str, str]:
    """The name of an argument and the kernel that is launched, from the frames of Triton's own
    launch, which calls with neither."""
    name, frame = "An argument", inspect.currentframe()
    while frame is not None:
        kernel: Any = frame.f_locals.get("self")
        if getattr(kernel, "fn", None) is not None and hasattr(kernel, "src"):
            return name, place_of(kernel, kernel.fn.__name__)
        if frame.f_code.co_name == "dynamic_func":
            names = [key for key, value in frame.f_locals.items() if value is arg]
            name = f"Argument {names[0]}" if names else name
        frame = frame.f_back
    return name, ""


def place_of(kernel: Any, name: str) -> str:
    """The kernel, and where it is written, if it is written in Python."""
    code = getattr(getattr(kernel, "fn", None), "__code__", None)
    return f"kernel {name}" + (f", {code.co_filename}:{code.co_firstlineno}" if code else "")
