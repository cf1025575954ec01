"""LLVM IR → assembly → object code → a function in memory."""

import functools
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from ..errors import CompileError
from . import host

HEAVY_TEXT_BYTES = 400_000
"""Beyond this much IR, LLVM's slower passes are skipped: they are worse than linear."""

_RECENT = 32


def to_assembly(text: str) -> str:
    """Optimises a module and generates this CPU's assembly. What was made last is kept: variants
    that `triton.autotune` tries often differ in what only GPUs heed, as the number of warps."""
    return _assembly(text, host.cpu_name())


@functools.lru_cache(_RECENT)
def _assembly(text: str, cpu: str) -> str:
    with host.LOCK:
        module = _parse(text)
        machine = host.target_machine()
        tuning = llvm.PipelineTuningOptions(speed_level=2 if len(text) < HEAVY_TEXT_BYTES else 1)
        tuning.loop_vectorization = False  # the lanes are written out already
        tuning.slp_vectorization = False
        tuning.loop_unrolling = len(text) < HEAVY_TEXT_BYTES
        builder = llvm.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(module, builder)
        return machine.emit_assembly(module)


def to_object(assembly: str) -> bytes:
    """Assembles; the text travels as module-level assembly of an otherwise empty module."""
    lines = assembly.replace("\\", "\\5C").replace('"', "\\22").split("\n")
    quoted = "\n".join(f'module asm "{line}"' for line in lines)
    with host.LOCK:
        return bytes(host.target_machine().emit_object(_parse(quoted)))


def _parse(text: str) -> llvm.ModuleRef:
    host.initialize()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refused the generated code: {error}") from None
    module.triple = host.target_machine().triple
    module.data_layout = str(host.target_machine().target_data)
    return module


class Loaded:
    """Object code in memory; `engine` keeps it there."""

    def __init__(self, code: bytes) -> None:
        with host.LOCK:
            host.initialize()
            machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
            self.engine: Any = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
            self.engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self.engine.finalize_object()

    def address(self, symbol: str) -> int:
        """Where a function of the object starts."""
        found = int(self.engine.get_function_address(symbol))
        if not found:
            raise CompileError(f"The object code defines no {symbol}.")
        return found


def provide_halves() -> None:
    """Makes known what LLVM calls to convert float16 where the CPU has no instruction for it."""
    if host.is_x86() and "f16c" not in host.features():
        _halves()


@functools.cache
def _halves() -> Loaded:
    code = compile_ir((Path(__file__).parent / "halves.ll").read_text())
    for name in ("__extendhfsf2", "__truncsfhf2"):
        llvm.add_symbol(name, code.address(name))
    return code


def compile_ir(text: str) -> Loaded:
    """A module of LLVM IR, in memory."""
    with host.LOCK:
        module = _parse(text)
        machine = host.target_machine()
        builder = llvm.create_pass_builder(machine, llvm.PipelineTuningOptions(speed_level=2))
        builder.getModulePassManager().run(module, builder)
        return Loaded(bytes(machine.emit_object(module)))
