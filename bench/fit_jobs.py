"""Which tables each kernel of each machine is fitted to.

Products in few bits, those of experts, and attention of a cache in few bits or of latents are
fitted to the fastest of what serving stacks run for a shape: stacks time kernels to choose among
them, and take up each other's. Products in bfloat16 are one library's in all stacks, so they are
fitted to the middle of what was measured.

What moves more than it computes is fitted to kernels that cast: on Hopper to TensorRT-LLM's, which
vLLM's equals, on Blackwell to the fastest of both, since TensorRT-LLM's moves a quarter less there.

Of dense products only tables count whose matrices were random: on weights that are all alike, as
vLLM's are but those of four bits, a chip draws less power, and computes up to 15 % faster than it
will on a model.

**Source:** He, "Strangely, matrix multiplications on GPUs run faster when given predictable data",
2024 (A100: 295 TFLOP/s on zeros, 257 on normal numbers); the collectors of gemm in aiconfigurator.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to fit: which parameters, of which machine, from which rows of its tables.

    Of a shape that several tables hold, the `fastest` counts, or else the middle. `unit` is what
    multiplies where weights are widened to it as they are read. Parameters that only some chips
    have are looked for if they are `also` named, or `given` with their values.
    """

    machine: str
    family: str
    dtype: str
    tables: tuple[str, ...]
    chosen: str = ""
    fastest: bool = True
    unit: str = ""
    also: tuple[str, ...] = ()
    given: tuple[tuple[str, float], ...] = ()


_HOPPER = ("hgx-h100", "hgx-h200")
# Machine, folder of its tables, and versions: of TensorRT-LLM, of vLLM and of SGLang.
_MACHINES = (
    ("hgx-a100", "a100_sxm", "1.0.0", "0.14.0", "0.5.10"),
    ("hgx-h100", "h100_sxm", "1.3.0rc20", "0.24.0", "0.5.14"),
    ("hgx-h200", "h200_sxm", "1.3.0rc20", "0.24.0", "0.5.14"),
    ("hgx-b200", "b200_sxm", "1.3.0rc20", "0.24.0", "0.5.14"),
    ("hgx-b300", "b300_sxm", "1.3.0rc20", "0.24.0", "0.5.14"),
    ("gb200-nvl72", "gb200", "1.3.0rc20", "0.24.0", "0.5.14"),
    ("gb300-nvl72", "gb300", "1.3.0rc20", "0.24.0", "0.5.14"),
)

_BLACKWELL = tuple(name for name, *_ in _MACHINES if name not in ("hgx-a100", *_HOPPER))
_IN_TURNS = (("queries", 256.0),)
"""Kernels of attention for Blackwell: two tiles of 128 queries take turns on a core."""

_WIDE = "attn_dtype == 'bfloat16' and kv_cache_dtype == 'bfloat16' and head_dim <= 256"
_EIGHT = "kv_cache_dtype == 'fp8' and head_dim <= 256 and window_size == 0"
_EIGHT += " and num_heads <= 16 * num_key_value_heads"
"""With a window, or more heads a key head, some of these kernels fall back to slow ones."""
_GATED = "not kernel_source.str.contains('nongated') and inter_size not in (1856, 2688, 5120)"
"""Nemotron-3's experts, which are of these widths, have no gate."""


def jobs() -> Iterator[Job]:
    """All of them, streams before the products, which are fitted on top of them."""
    for machine, folder, trt, vllm, sglang in _MACHINES:
        a100 = machine == "hgx-a100"
        casting = (f"trtllm/{trt}", f"vllm/{vllm}") if machine in _BLACKWELL else (f"trtllm/{trt}",)
        casts = tuple(f"{folder}/quantize/{stack}/scale_matrix_perf.parquet" for stack in casting)
        if not a100:
            yield Job(machine=machine, family="stream", dtype="any", tables=casts)
        stacks = (f"trtllm/{trt}",) if a100 else (f"trtllm/{trt}", f"vllm/{vllm}")
        stacks += (f"sglang/{sglang}",)
        for dtype, chosen in _gemms(machine):
            random = stacks if dtype == "float4" else (f"trtllm/{trt}", f"sglang/{sglang}")
            tables = tuple(f"{folder}/gemm/{stack}/gemm_perf.parquet" for stack in random)
            rows = f"gemm_dtype in {chosen} and m * n * k >= 2**20"
            job = Job(machine=machine, family="matmul", dtype=dtype, tables=tables, chosen=rows)
            yield replace(job, fastest=dtype != "bfloat16")
        heads = f"{folder}/attention/vllm/{vllm}"
        wide = "head_dim <= 256" if a100 else _WIDE
        for family, table in (("attention", "context"), ("decode", "generation")):
            name = f"{heads}/{table}_attention_perf.parquet"
            job = Job(machine=machine, family=family, dtype="bfloat16", tables=(name,), chosen=wide)
            in_turns = family == "attention" and machine in _BLACKWELL
            yield replace(job, also=("hidden",), given=_IN_TURNS) if in_turns else job
        if a100:  # its tables have no cache in 8 bits, no latents, and no balanced rows
            continue
        caches = tuple(f"{folder}/attention/{stack}/generation_attention_perf" for stack in stacks)
        yield _caches(machine, "decode", "float8", caches, _EIGHT)
        latents = (f"{folder}/mla/trtllm/{trt}", f"{folder}/mla/sglang/{sglang}")
        latents = tuple(f"{path}/generation_mla_perf" for path in latents)
        for dtype, name in (("bfloat16", "bfloat16"), ("float8", "fp8")):
            yield _caches(machine, "latent", dtype, latents, f"kv_cache_dtype == '{name}'")
        experts = tuple(f"{folder}/moe/{stack}/moe_perf.parquet" for stack in stacks)
        for dtype, chosen in _gemms(machine):
            even = f"distribution == 'balanced' and moe_dtype in {chosen} and {_GATED}"
            yield Job(machine=machine, family="grouped", dtype=dtype, tables=experts, chosen=even)
        for weights, unit, chosen in _widened(machine):
            even = f"distribution == 'balanced' and moe_ep_size == 1 and {chosen} and {_GATED}"
            job = Job(machine=machine, family="grouped", dtype=weights, tables=experts, chosen=even)
            yield replace(job, unit=unit)


def _caches(machine: str, family: str, dtype: str, tables: tuple[str, ...], chosen: str) -> Job:
    """Attention of a cache that keeps its numbers in `dtype`."""
    names = tuple(f"{table}.parquet" for table in tables)
    return Job(machine=machine, family=family, dtype=dtype, tables=names, chosen=chosen)


def _gemms(machine: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Dtypes, and what tables call them; of float8 with one scale and with one for each block."""
    if machine == "hgx-a100":
        return (("bfloat16", ("bfloat16",)), ("int8", ("sq",)))
    hopper = (("bfloat16", ("bfloat16",)), ("float8", ("fp8", "fp8_block")))
    return hopper if machine in _HOPPER else (*hopper, ("float4", ("nvfp4",)))


def _widened(machine: str) -> tuple[tuple[str, str, str], ...]:
    """Formats of experts' weights that are widened as they are read: what then multiplies, and
    which rows have them. Blackwell multiplies mxfp4 with float8; int4 is computed by Marlin.

    Only layers with all experts on one chip count: with some elsewhere several of these kernels
    also step over the rows that are not theirs, and take up to ten times as long."""
    hopper = machine in _HOPPER
    mxfp4 = ("bfloat16", "w4a16_mxfp4") if hopper else ("float8", "w4a8_mxfp4_mxfp8")
    int4 = "moe_dtype == 'int4_wo' and kernel_source.str.contains('marlin')"
    return ("mxfp4", mxfp4[0], f"moe_dtype == '{mxfp4[1]}'"), ("int4", "bfloat16", int4)
