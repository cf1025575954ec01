"""The CPU this process runs on, as LLVM sees it."""

import ctypes
import functools
import platform
import sys
import threading

import llvmlite.binding as llvm

LOCK = threading.RLock()
"""llvmlite's objects are not safe to use from several threads at once."""


_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Of Linux on x86-64: asm/prctl.h, ARCH_REQ_XCOMP_PERM and XFEATURE_XTILE_DATA."""


@functools.cache
def matrix_unit() -> bool:
    """Whether the system lets this process use AMX, for which it must be asked."""
    if "amx-tile" not in llvm.get_host_cpu_features() or sys.platform != "linux":
        return False
    call = ctypes.CDLL(None).syscall
    return call(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


@functools.cache
def initialize() -> None:
    """Readies LLVM's code generator and assembler for this CPU, and its matrix unit."""
    matrix_unit()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()


@functools.cache
def cpu_name() -> str:
    """LLVM's name of the CPU: `sapphirerapids`, `znver4`, `neoverse-v1`, …"""
    return llvm.get_host_cpu_name()


@functools.cache
def features() -> frozenset[str]:
    """The instruction sets it has: `avx512f`, `amx-bf16`, `neon`, …"""
    known = llvm.get_host_cpu_features().items()
    usable = matrix_unit()
    return frozenset(n for n, present in known if present and (usable or "amx" not in n))


def is_x86() -> bool:
    """Whether it is one of Intel's kind."""
    return platform.machine().lower() in ("x86_64", "amd64", "i686")


@functools.cache
def vector_bits() -> int:
    """Width of its vector registers."""
    if "avx512f" in features():
        return 512
    return 256 if "avx2" in features() else 128


@functools.cache
def target_machine() -> llvm.TargetMachine:
    """LLVM's code generator for this CPU."""
    initialize()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
        reloc="pic",
        codemodel="default",
    )
