"""The backend Triton finds through the entry point `triton.backends`: stages from TTIR to code."""

import functools
import hashlib
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget

from .emit.context import Target
from .emit.kernel import emit_kernel
from .errors import CompileError, cause, placed
from .options import CpuOptions
from .runtime import codegen, host
from .tile.ops import UNKNOWN, Location, Module
from .tile.printer import print_module
from .tile.translate import translate

MAX_SCRATCH_BYTES = 192 << 20
"""Memory for tiles one program may use: it must fit a worker's stack."""


class CpuBackend(BaseBackend):
    """Compiles kernels for this machine's CPU."""

    supports_native_tensor_specialization = True
    binary_ext = "obj"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Whether this backend makes code for `target`."""
        return target.backend == "cpu"

    def get_target_name(self, options: CpuOptions) -> str:
        """A name for messages."""
        return f"cpu:{self.target.arch}"

    def parse_options(self, opts: dict[str, Any]) -> CpuOptions:
        """The options among the keywords of a launch."""
        known = CpuOptions.__dataclass_fields__
        given = {name: opts[name] for name in known if opts.get(name) is not None}
        given.setdefault("arch", str(self.target.arch))
        return CpuOptions(**given)

    def pack_metadata(self, metadata: Any) -> Any:
        """What the launcher receives besides the arguments."""
        return metadata

    def get_codegen_implementation(self, options: CpuOptions) -> dict[str, Any]:
        """Hooks of the frontend: `tl.dot` takes tiles of any size."""
        from . import custom_floats  # triton.language: not importable while backends are found

        return {"min_dot_size": _any_dot_size, "convert_custom_types": custom_floats.convert}

    def get_module_map(self) -> dict[str, ModuleType]:
        """Which module stands for `tl.extra.libdevice`; its functions are resolved by name."""
        from triton.language.extra.cuda import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, context: Any) -> None:
        """No dialect beyond Triton's own."""

    def add_stages(
        self, stages: dict[str, Any], options: CpuOptions, language: object = None
    ) -> None:
        """ttir → tile → llir → asm → obj. `tile` is text to read; the state is kept beside it."""
        state: dict[str, Any] = {}
        stages["ttir"] = lambda source, metadata: _make_ttir(source)
        stages["tile"] = lambda source, metadata: _make_tile(source, metadata, options, state)
        stages["llir"] = lambda source, metadata: _make_llir(metadata, options, state)
        stages["asm"] = lambda source, metadata: codegen.to_assembly(source)
        stages["obj"] = _make_object

    def hash(self) -> str:
        """Changes with this package's sources and with the CPU: part of Triton's cache key."""
        unit = "matrix" if host.matrix_unit() else ""
        return f"{_source_digest()}-{host.cpu_name()}-{unit}"


def _make_object(assembly: str, metadata: dict[str, Any]) -> bytes:
    code = codegen.to_object(assembly)
    metadata["checksum"] = zlib.crc32(code)
    return code


@functools.cache
def _source_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.suffix in (".py", ".ll"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _any_dot_size(left: object, right: object) -> tuple[int, int, int]:
    return (1, 1, 1)


def _make_ttir(module: Any) -> Any:
    """Triton's own simplifications, those that know no hardware."""
    manager = ir.pass_manager(module.context)
    passes.common.add_inliner(manager)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(manager)
    if hasattr(passes.ttir, "add_rewrite_tensor_pointer"):  # until 3.8: block pointers
        passes.ttir.add_rewrite_tensor_pointer(manager)
    passes.common.add_canonicalizer(manager)
    passes.ttir.add_combine(manager)
    passes.ttir.add_reorder_broadcast(manager)
    passes.common.add_cse(manager)
    passes.ttir.add_triton_licm(manager)
    passes.common.add_symbol_dce(manager)
    passes.ttir.add_loop_unroll(manager)
    manager.run(module, "make_ttir")
    return module


def _generic_text(module: Any) -> str:
    """The module in MLIR's generic form: it prints so while an attribute has the wrong type."""
    builder = ir.builder(module.context)
    module.set_attr("llvm.data_layout", builder.get_int32_attr(0))
    text = module.str()
    module.set_attr("llvm.data_layout", builder.get_string_attr(""))
    return text


@contextmanager
def _errors_name(kernel: str, location: Location = UNKNOWN) -> Generator[None]:
    """Every error inside names the kernel, and a place in it: `location` if it knows no nearer."""
    try:
        yield
    except Exception as error:
        known = placed(error, str(location))
        where = f"kernel {kernel}, {known.where}"
        raise type(known)(known.wrong, where=where, fix=known.fix) from cause(error)


def _make_tile(
    module: Any, metadata: dict[str, Any], options: CpuOptions, state: dict[str, Any]
) -> str:
    name = module.get_entry_func_name()
    metadata["name"] = name
    with _errors_name(name):
        state["module"] = translate(_generic_text(module), name)
    return print_module(state["module"])


def _make_llir(metadata: dict[str, Any], options: CpuOptions, state: dict[str, Any]) -> str:
    target = Target(host.vector_bits(), host.features(), options.enable_fp_fusion, options.sanitize)
    module: Module = state["module"]
    with _errors_name(module.entry, module.kernel.location):
        emitted = emit_kernel(module, target)
        if emitted.scratch_bytes > MAX_SCRATCH_BYTES:
            raise CompileError(
                f"One program needs {emitted.scratch_bytes / 2**20:.0f} MiB for its tiles;"
                f" {MAX_SCRATCH_BYTES >> 20} MiB is the most.",
                fix="use smaller blocks",
            )
    metadata["shared"] = emitted.scratch_bytes  # what a GPU keeps in shared memory, mostly
    metadata["arguments"] = emitted.arguments
    metadata["written"] = emitted.written
    metadata["scratch_bytes"] = emitted.scratch_bytes
    metadata["sites"] = emitted.sites
    metadata["global_scratch_size"] = 0
    metadata["profile_scratch_size"] = 0
    metadata["tensordesc_meta"] = None
    return emitted.text
