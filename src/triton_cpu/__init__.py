"""Triton kernels on CPUs: a backend for stock `triton`, in Python and LLVM.

Installing this package is enough: Triton finds it through the entry point `triton.backends`, and on
a machine without a GPU launches on CPU tensors and NumPy arrays run natively. With a GPU present,
`TRITON_DEFAULT_BACKEND=cpu` or `activate()` choose it.
"""

from .errors import ArgumentError, CompileError, KernelAssertion, TritonCpuError, UnsupportedOp

__all__ = [
    "ArgumentError",
    "CompileError",
    "KernelAssertion",
    "TritonCpuError",
    "UnsupportedOp",
    "activate",
]


def activate() -> None:
    """Makes the CPU the place where kernels are compiled for and run, from now on."""
    from triton import runtime

    from .driver import CpuDriver

    runtime.driver.set_active(CpuDriver())
