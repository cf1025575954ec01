"""The compile options of a kernel: what Triton's frontend asks of every backend, and our own."""

import hashlib
import os
from dataclasses import dataclass, field

FP8 = ("fp8e5", "fp8e4nv", "fp8e4b15", "fp8e4b8", "fp8e5b16")


def sanitize_by_default() -> bool:
    """Whether the environment asks for checked memory accesses."""
    return os.environ.get("TRITON_CPU_SANITIZE", "0") not in ("", "0")


@dataclass(frozen=True)
class CpuOptions:
    """Options a launch may give by keyword. Those that size GPU hardware are accepted and have no
    effect, so that tuned GPU kernels run as they are.

    Our own: `num_threads` (0: see `runtime.pool.thread_count`) and `sanitize`.
    """

    num_threads: int = 0
    sanitize: bool = field(default_factory=sanitize_by_default)
    # What the frontend reads
    backend_name: str = "cpu"
    arch: str = ""
    debug: bool = False
    sanitize_overflow: bool = False
    enable_fp_fusion: bool = True
    supported_fp8_dtypes: tuple[str, ...] = FP8
    deprecated_fp8_dtypes: tuple[str, ...] = ()
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")
    max_num_imprecise_acc_default: int = 0
    extern_libs: tuple[object, ...] = ()
    ir_override: str | None = None
    instrumentation_mode: str = ""
    fpsan_homomorphic_casts: bool = False
    # What sizes a GPU's hardware
    num_warps: int = 4
    num_ctas: int = 1
    num_stages: int = 1
    warp_size: int = 1
    maxnreg: int | None = None
    cluster_dims: tuple[int, ...] = (1, 1, 1)
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False
    waves_per_eu: int = 0
    matrix_instr_nonkdim: int = 0
    kpack: int = 1

    def __post_init__(self) -> None:
        warps = self.num_warps
        assert bin(warps).count("1") == 1, "num_warps must be a power of 2"

    def hash(self) -> str:
        """A key for Triton's cache."""
        text = "_".join(f"{name}-{value}" for name, value in sorted(self.__dict__.items()))
        return hashlib.sha256(text.encode()).hexdigest()
