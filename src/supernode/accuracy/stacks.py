"""What is known of the software that served a row, and of the requests it got.

Tables of results name the stack and its version, not how it was set. Stacks have defaults, and the
scripts of InferenceMAX, from which the rows with these three lengths and a date are, are public.

**Source:** SemiAnalysis, InferenceMAX (`benchmarks/*.sh`, `.github/workflows/benchmark-tmpl.yml`),
read 2026-11-27; defaults of vLLM 0.10 (`max_num_batched_tokens`), TensorRT-LLM 1.1
(`max_num_tokens`) and SGLang 0.5 (`chunked_prefill_size`).
"""

import re
from dataclasses import dataclass

from supernode.accuracy.truth import Row

TOKENS_A_PASS = 8192
"""So many tokens of prompts go in one pass."""
_DRAWN = 0.9
"""Of the named length the mean, where lengths are drawn evenly from 0.8 of it to all of it."""
_LENGTHS = ((1024.0, 1024.0), (1024.0, 8192.0), (8192.0, 1024.0))
_SCHEDULED_AFTER_S = 2.1e-5
"""What a host takes for each request between two passes, where it schedules one only when the last
is done. **Source:** vLLM issue 10634 and pull request 11133, 2024: with 256 requests 5 to 6 ms from
pass to pass, 0.15 to 0.17 ms where passes are scheduled ahead."""
_AHEAD_SINCE = "2026-01-17"
"""From when vLLM schedules ahead unless told otherwise. **Source:** vLLM 0.14.0, release notes; for
gpt-oss its recipe asked for it before."""
BLACKWELL = ("hgx-b200", "hgx-b300", "gb200-nvl72", "gb300-nvl72")
"""Machines of this generation, which also multiply four bits with eight. **Source:** for the latter
vLLM's recipe for gpt-oss, 2025."""
_NARROW = ("fp8", "fp4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """How a system takes in newcomers (as in `Serving`), what its cache is in, how long its
    requests are on average, over what the row says, and what its host takes for each of them
    while the chips wait."""

    name: str
    mixed: bool
    together: bool
    cache: str
    length: float
    host_s: float


def stack_of(row: Row) -> Stack:
    """That of a row; of what is not known, the defaults."""
    found = re.search(r"; (sglang|vllm|trtllm) ", row.text("note"))
    name = found[1] if found else ""
    lengths = (row.number("input_len"), row.number("output_len_or_kv"))
    drawn = "measured" in row.text("note") and lengths in _LENGTHS
    return Stack(
        name=name,
        mixed=name != "sglang",
        together=not drawn,
        cache=_cache(row, name) if drawn else "",
        length=_DRAWN if drawn else 1.0,
        host_s=_SCHEDULED_AFTER_S if name == "vllm" and not _ahead(row) else 0.0,
    )


def _ahead(row: Row) -> bool:
    """Whether vLLM scheduled passes ahead: by its release, or, where that is not recorded, by when
    it was measured."""
    if row.text("model").startswith("gpt-oss"):
        return True
    release = re.search(r"vllm 0\.(\d+)", row.text("note"))
    if release is not None:
        return int(release[1]) >= 14
    measured = re.search(r"measured (\S+)", row.text("note"))
    return measured is not None and measured[1] >= _AHEAD_SINCE


def _cache(row: Row, name: str) -> str:
    """TensorRT-LLM is told to keep it in eight bits but of gpt-oss, the others on Blackwell."""
    if row.text("precision") not in _NARROW:
        return ""
    gpt_oss = row.text("model").startswith("gpt-oss")
    narrow = not gpt_oss if name == "trtllm" else row.machine in BLACKWELL
    return "fp8" if narrow else ""
