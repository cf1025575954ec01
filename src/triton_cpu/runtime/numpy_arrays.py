"""Lets NumPy arrays and scalars be passed to kernels.

Triton asks each argument for its type through one function, which knows torch tensors and Python
numbers. While this backend is in use, arguments it refuses are looked at here.
"""

import sys
from typing import Any

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
        except TypeError:
            if "numpy" not in sys.modules:
                raise
            return _specialize(native, backend, arg, is_const, specialize_value, align)

    specialize.takes_numpy = True  # pyright: ignore[reportFunctionMemberAccess]
    jit.native_specialize_impl = specialize


def _specialize(
    native: Any, backend: Any, arg: Any, is_const: bool, specialize_value: bool, align: bool
) -> Any:
    import numpy

    if isinstance(arg, numpy.ndarray):
        name = _DTYPES.get(arg.dtype.name)
        if name is None:
            raise TypeError(f"Triton has no type for NumPy arrays of {arg.dtype}.")
        aligned = align and arg.ctypes.data % ALIGNMENT == 0
        return (f"*{'k' if is_const else ''}{name}", "D" if aligned else "")
    if isinstance(arg, numpy.generic):
        return native(backend, arg.item(), is_const, specialize_value, align)
    raise TypeError(f"Triton can't pass a {type(arg).__name__} to a kernel.")
