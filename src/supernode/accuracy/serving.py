"""Rows of served models: one prefill or decode step, and systems that do both (`loop.py`).

Caches are half-way through the output. How long a request waits for its first token is taken from
the row where it says so: queues, and what is sent between chips that prefill and that decode, are
no part of a plan.
"""

import re
from dataclasses import dataclass, replace

from supernode.accuracy.case import Case, NotExpressed, Serving, Spec, Step
from supernode.accuracy.machines import machine_of, network_of
from supernode.accuracy.shapes import served_shape
from supernode.accuracy.stacks import BLACKWELL, TOKENS_A_PASS, stack_of
from supernode.accuracy.truth import Row
from supernode.models import Shape
from supernode.simulate import Terms
from supernode.simulate.precision import PRECISIONS

_ACCEPTED = 0.7
"""The share of guessed tokens taken, where a row assumes one. **Source:** CM384, table 4."""
_SCALED_BY_BLOCKS = ("DeepSeek", "Qwen3-235B-A22B-FP8", "MiniMax", "GLM", "Qwen3.5")
"""Models whose own float8 weights have a scale for each block of 128 by 128, and their inputs one
for each 128. **Source:** DeepSeek-V3's report, section 3.3; the others' configuration files."""
_FOUR_BITS_OUTSIDE_ATTENTION = ("DeepSeek", "Kimi")
"""Models whose weights in four bits are those of MLPs and experts alone. **Source:** the lists of
modules left out in `hf_quant_config.json` of nvidia/DeepSeek-R1-0528-FP4 and of Kimi K2; K2.5's
own int4 is of its experts, by its model card."""
_EACH_COPY = "CM384"
"""Whose kernels send every copy of a token by itself in prefills too."""
_TURNS = ("CM384", "DeepSeek profile data", "SGLang 96 H100")
"""Whose systems compute one of two microbatches while the other communicates. **Source:** arXiv
2506.12708, section 4.2.3; DeepSeek, profile-data; SGLang's post of 2025-05-05 on 96 H100."""
_UNEVEN = 1.4
"""How many rows the fullest chip's experts get, over the mean, by a router that nothing balances.
**Source:** inferred from a pair that SGLang's post of 2025-05-05 publishes: experts over 32 chips
prefill 18 % faster if their rows are spread evenly (59,337 and 50,302 tokens/s a node)."""
_WORKER = re.compile(r"(?:(\d+) x \()?TP(\d+)(?: attention-DP(\d+))?(?: MoE-TP(\d+))?(?: EP(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Chips that serve together: attention over `tp` x `dp`, experts over `moe_tp` x `ep`."""

    count: int
    tp: int
    dp: int
    moe_tp: int
    ep: int

    @property
    def chips(self) -> int:
        return self.tp * self.dp

    def layout(self, experts: bool) -> str:
        """The layout line.

        Raises:
            NotExpressed: experts lie over other chips than attention does.
        """
        if not experts or self.ep * self.moe_tp == 1:
            return ",".join(
                f"{name}={n}" for name, n in (("dp", self.dp), ("tp", self.tp)) if n > 1
            )
        if self.moe_tp == 1 and self.ep == self.dp and self.tp == 1:
            return f"ep={self.ep}"
        if self.ep == 1 and self.moe_tp == self.tp and self.dp == 1:
            return f"tp={self.tp}"
        if self.moe_tp == 1 and self.ep == self.tp and self.dp == 1:
            return f"tp={self.tp},ep=tp"
        raise NotExpressed(
            f"attention over TP{self.tp} x DP{self.dp} with experts over TP{self.moe_tp} x "
            f"EP{self.ep}: no axes of a layout split both so"
        )


def worker(text: str) -> Worker:
    """The worker that `TP8 MoE-TP1 EP8` or `2 x (TP4 attention-DP1 MoE-TP4 EP1)` names.

    Raises:
        NotExpressed: the text names none.
    """
    found = _WORKER.search(text)
    if found is None:
        raise NotExpressed(f"the layout {text!r} names no worker")
    count, tp, dp, moe_tp, ep = (int(group or 1) for group in found.groups())
    return Worker(count=count, tp=tp, dp=dp, moe_tp=moe_tp, ep=ep)


def serving_case(row: Row) -> Case:
    """The step, or the steps, of a row.

    Raises:
        NotExpressed: something it takes is not stated, or is nothing a plan can say.
    """
    phase = row.text("phase")
    if phase == "prefill":
        return _prefill(row)
    return _decode(row) if phase == "decode" else _mixed(row)


def _stated(row: Row, column: str) -> float:
    found = row.number(column)
    if found is None:
        raise NotExpressed(f"{column} is not stated")
    return found


def _case(row: Row, machine: str, measured_s: float, spec: Spec) -> Case:
    return Case(
        id=row.id,
        source=row.source,
        regime="prefill" if row.text("phase") == "prefill" else "decode",
        machine=machine,
        network_bytes_per_s=network_of(row),
        measured_s=measured_s,
        parts=((1.0, spec),),
        group=tuple(
            row.text(name)
            for name in (
                "source",
                "machine",
                "model",
                "precision",
                "chips",
                "input_len",
                "output_len_or_kv",
            )
        ),
        work=(row.number("batch_per_chip") or 1.0) * row.count("chips", 1),
        knobs=tuple((name, row.text(name)) for name in ("parallel", "batch_per_chip")),
    )


def _step(
    row: Row,
    batch: float,
    length: float,
    layout: str,
    chips: int,
    phase: str,
    cache: str = "",
) -> Step:
    shape, precision = _shape(row, layout), _precision(row)
    return Step(
        shape=shape,
        dtype="bfloat16",
        phase=phase,
        batch=max(1, round(batch)),
        sequence=round(length),
        layout=layout,
        chips=chips,
        ahead=_ahead(row, phase),
        precision=precision,
        cache=cache,
        terms=Terms(
            small_at_once=True,
            copies=shape.topk,
            once=phase == "prefill" and not row.source.startswith(_EACH_COPY),
            narrow=_narrow(precision),
            imbalance=_UNEVEN if "default routing" in row.text("note") else 1.0,
        ),
    )


def _shape(row: Row, layout: str) -> Shape:
    """As its chips hold it. Where more of them split the heads than there are heads of keys, stacks
    copy those to all. Experts that lie on chips of their own, shared ones and copies of busy ones
    among them, are routed to like any other: each token to one more."""
    shape, tp = served_shape(row), re.search(r"tp=(\d+)", layout)
    if shape.kv_heads and tp is not None:
        return replace(shape, kv_heads=max(shape.kv_heads, int(tp[1])))
    each = re.search(r"(\d+) shared \+ (\d+) routed \+ (\d+) redundant", row.text("parallel"))
    if each is None:
        return shape
    experts, topk = sum(map(int, each.groups())), shape.topk + shape.shared_experts
    return replace(shape, experts=experts, topk=topk, shared_experts=0)


def _ahead(row: Row, phase: str) -> int:
    """How many tokens of a sequence an iteration handles: one, and one that was guessed."""
    return 2 if phase == "decode" and re.search(r"MTP (on|with)", row.text("note")) else 1


def _precision(row: Row) -> str:
    """As stated, of the layers that the model's published weights have so. Where scales are of
    blocks a kernel of its own casts, but by TensorRT-LLM, which fuses that for four bits."""
    stated, model = row.text("precision") or "bf16", row.text("model")
    if model.startswith("gpt-oss"):  # multiplied with float8 where the chip has both, else widened
        return "mxfp4-mxfp8" if row.machine in BLACKWELL else "mxfp4"
    if stated == "int4" and model.startswith("Kimi"):
        return "int4-experts"
    if stated == "fp4" and model.startswith(_FOUR_BITS_OUTSIDE_ATTENTION):
        return "fp4-mlp"
    blocks = stated.startswith("fp8") and model.startswith(_SCALED_BY_BLOCKS)
    if blocks or (stated == "fp4" and stack_of(row).name != "trtllm"):
        return f"{stated.split(' ')[0]}-cast"
    return stated


def _narrow(precision: str) -> float:
    """How much of its bytes a row has that goes to experts: stacks cast before they send."""
    found = PRECISIONS.get(precision)
    return found.activation_bytes / 2 if found else 1.0


def _expert_line(row: Row, chips: int) -> str:
    """`ep=32` of a row whose attention is data parallel over the same chips."""
    found = re.search(r"EP(\d+)", row.text("parallel"))
    if not found:
        raise NotExpressed("how the experts are split is not stated")
    ep = int(found[1])
    if chips % ep:
        raise NotExpressed(f"EP{ep} does not divide {chips} chips")
    axes = [f"{name}={n}" for name, n in (("dp", chips // ep), ("ep", ep)) if n > 1]
    turns = ["micro=2", "turns"] if row.source.startswith(_TURNS) else []
    return ",".join([*axes, *turns])


def _prefill(row: Row) -> Case:
    machine, chips = machine_of(row)
    length = _stated(row, "input_len")
    tokens = re.search(r"(\d+) tokens per (?:package|GPU)", row.text("note"))
    if not tokens:
        raise NotExpressed("the tokens of a batch are not stated")
    each = float(tokens[1])
    batch = each * _stated(row, "chips") / length
    step = _step(row, batch, length, _expert_line(row, chips), chips, "prefill")
    return _case(row, machine, each / _stated(row, "tok_s_chip"), step)


def _decode(row: Row) -> Case:
    machine, chips = machine_of(row)
    each, note = _stated(row, "batch_per_chip"), row.text("note")
    length = _stated(row, "input_len") + (row.number("output_len_or_kv") or 0.0) / 2
    batch = each * _stated(row, "chips")
    step = _step(row, batch, length, _expert_line(row, chips), chips, "decode")
    taken = 1 + _ACCEPTED if "acceptance" in note else 1.0
    if step.ahead > 1 and taken == 1.0:
        raise NotExpressed("how many guessed tokens are taken is not stated")
    token_s = row.number("tpot_ms")
    measured = each / _stated(row, "tok_s_chip") if token_s is None else token_s / 1e3
    return _case(row, machine, measured * taken, step)


def _mixed(row: Row) -> Case:
    token_s = _stated(row, "tpot_ms") / 1e3
    if row.number("batch_per_chip") is None or row.number("input_len") is None:
        raise NotExpressed("the batch or the lengths are not stated")
    shape, output = served_shape(row), _stated(row, "output_len_or_kv")
    parallel = row.text("parallel")
    apart = "decode" in parallel
    decoding = worker(parallel.split("decode")[1] if apart else parallel)
    share = 1 / decoding.count if apart else decoding.chips / row.count("chips", 1)
    requests = _concurrency(row) * share
    machine, _ = machine_of(row, decoding.chips)
    layout, chips = decoding.layout(bool(shape.experts)), decoding.chips
    stack = stack_of(row)
    length, output = stack.length * _stated(row, "input_len"), stack.length * output
    decode = _step(row, requests, length + output / 2, layout, chips, "decode", stack.cache)
    prompts = None
    if not apart:
        # Those who are in step come together, as many as a pass takes; others one by one. Fewer
        # than a layout splits the batch into would leave chips idle.
        alike = min(requests / decoding.dp, TOKENS_A_PASS // length) if stack.together else 1
        newcomers = max(1, alike) * decoding.dp
        prompts = _step(row, newcomers, length, layout, chips, "prefill", stack.cache)
    serving = Serving(
        decode=decode,
        prompts=prompts,
        output=output,
        wait_s=(row.number("ttft_ms") or 0.0) / 1e3,
        mixed=stack.mixed,
        together=stack.together,
        host_s=stack.host_s,
    )
    return _case(row, machine, token_s, serving)


def _concurrency(row: Row) -> float:
    stated = row.noted_number("concurrency")
    return stated or _stated(row, "batch_per_chip") * _stated(row, "chips")
