"""The CPU this process runs on, as LLVM sees it."""

import functools
import threading

import llvmlite.binding as llvm

LOCK = threading.RLock()
"""llvmlite's objects are not safe to use from several threads at once."""


@functools.cache
def initialize() -> None:
    """Readies LLVM's code generator and assembler for this CPU."""
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
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


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
