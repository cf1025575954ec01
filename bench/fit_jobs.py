"""Which table each kernel of each machine is fitted to."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One table to fit: which parameters, of which machine, from which of its rows."""

    machine: str
    family: str
    dtype: str
    table: str
    chosen: str = ""


# Machine, folder of its tables, and versions: of TensorRT-LLM and of vLLM.
_MACHINES = (
    ("hgx-a100", "a100_sxm", "1.0.0", "0.14.0"),
    ("hgx-h100", "h100_sxm", "1.3.0rc20", "0.24.0"),
    ("hgx-h200", "h200_sxm", "1.3.0rc20", "0.24.0"),
    ("hgx-b200", "b200_sxm", "1.3.0rc20", "0.24.0"),
    ("hgx-b300", "b300_sxm", "1.3.0rc20", "0.24.0"),
    ("gb200-nvl72", "gb200", "1.3.0rc20", "0.24.0"),
    ("gb300-nvl72", "gb300", "1.3.0rc20", "0.24.0"),
)

_WIDE = "attn_dtype == 'bfloat16' and kv_cache_dtype == 'bfloat16' and head_dim <= 256"
_NARROW = "attn_dtype == 'fp8' and kv_cache_dtype == 'fp8' and head_dim <= 256"


def jobs() -> Iterator[Job]:
    """All of them, streams before the grouped products, which are fitted on top of them."""
    for machine, folder, trt, vllm in _MACHINES:
        a100 = machine == "hgx-a100"
        cast = f"{folder}/quantize/trtllm/{trt}/scale_matrix_perf.parquet"
        if not a100:
            yield Job(machine=machine, family="stream", dtype="any", table=cast)
        for dtype, chosen in _gemms(machine):
            mine = f"vllm/{vllm}" if dtype == "bfloat16" else f"trtllm/{trt}"
            table = f"{folder}/gemm/{mine}/gemm_perf.parquet"
            rows = f"gemm_dtype == '{chosen}' and m * n * k >= 2**20"
            yield Job(machine=machine, family="matmul", dtype=dtype, table=table, chosen=rows)
        heads = f"{folder}/attention/vllm/{vllm}"
        wide = "head_dim <= 256" if a100 else _WIDE
        for family, table in (("attention", "context"), ("decode", "generation")):
            name = f"{heads}/{table}_attention_perf.parquet"
            yield Job(machine=machine, family=family, dtype="bfloat16", table=name, chosen=wide)
        if a100:  # its table has no balanced rows
            continue
        experts = f"{folder}/moe/trtllm/{trt}/moe_perf.parquet"
        even = "distribution == 'balanced' and moe_dtype == '{}'"
        even += " and kernel_source in ('moe_torch_flow_cutlass', 'moe_torch_flow')"
        for dtype, chosen in _gemms(machine):
            rows = even.format(chosen)
            yield Job(machine=machine, family="grouped", dtype=dtype, table=experts, chosen=rows)


def _gemms(machine: str) -> tuple[tuple[str, str], ...]:
    if machine == "hgx-a100":
        return (("bfloat16", "bfloat16"), ("int8", "sq"))
    if machine in ("hgx-h100", "hgx-h200"):
        return (("bfloat16", "bfloat16"), ("float8", "fp8"))
    return (("bfloat16", "bfloat16"), ("float8", "fp8"), ("float4", "nvfp4"))
