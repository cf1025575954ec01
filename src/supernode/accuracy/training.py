"""Rows of training runs: the model, the layout line, and the measured step time."""

from dataclasses import replace

from supernode.accuracy.case import Case, NotExpressed, Step
from supernode.accuracy.machines import machine_of, network_of
from supernode.accuracy.recipes import Recipe, recipe_of
from supernode.accuracy.shapes import trained_shape
from supernode.accuracy.truth import Row
from supernode.models import Shape
from supernode.simulate import Terms
from supernode.simulate.launched import ALL, NOTHING

_DTYPES = {"fp16": "float16"}
_SPLIT_STATE = ("Megatron-Core", "Megatron-Bridge", "Megatron-LM examples")
"""Sources whose runs keep the optimizer's state in parts over data parallel (their default)."""
_NO_TOKEN_SPLIT = ("Megatron-LM SC'21", "no sequence parallelism")
"""Where tensor parallel ranks do not split tokens; elsewhere they do (the default since 2022)."""

_BY_SCORES = ("Megatron-LM SC'21", "Korthikanti", "Megatron-LM 2019", "OPT-175B")
"""Whose runs of before FlashAttention hold all scores in memory."""
_FLASH_1 = "llm-foundry"
"""Whose runs of 2023 have FlashAttention in its first version or in Triton's."""
_EAGER = "llm-foundry"
"""Whose runs of 2023 are plain PyTorch, not compiled: the host launches each op as it stands."""
_LATE = "llm-foundry"
"""Whose FSDP gathers a layer's weights in backward once the layer before is done.

**Source:** MosaicML Composer, `FSDPConfig` (`backward_prefetch: str = 'BACKWARD_POST'`), which
llm-foundry's scripts for benchmarks leave as it is.
"""
_ROUTED = "DeepSeek"
"""Whose routed rows go by kernels made for that, where no recipe says how (`recipes.py`)."""
_PERMUTED = ("Megatron", "DeepSeek")
"""Whose rows of tokens are sorted and added up by kernels made for that."""

_PAIRS = "DualPipe"
"""A schedule whose forwards and backwards hide each other's sending. **Source:** DeepSeek-AI,
"DeepSeek-V3 Technical Report", 2024, section 3.2.1."""
_MODULES = {
    "attn": (".attention",),
    "moe_router": (".mlp_norm", ".mlp.router"),
    "moe_preprocess": (),
    "layers": ("blocks.",),
    "all": ALL,
}
"""What the scopes of graphs in a recipe hold, of the modules of a model here. **Source:**
Megatron-Core, `cuda_graph_scope`: `attn` is attention with its norm, `moe_router` the router with
the norm before it; preparing to send is no op here."""
_CASTS = {"mxfp8": 1, "nvfp4": 1, "fp8": 3, "fp8-cs": 3}
"""Kernels that cast one tensor: scales of blocks are found on the way, of a tensor by two before.
**Source:** Transformer Engine 2.9, `quantizer.cpp`."""

_BIASED = (28.0, 40.0)
"""Bytes in forward and backward where each expert has a bias behind its last product: `t + b * p`
in float32 and put together, expert by expert. **Source:** Megatron-Core 0.16,
`TEGroupedMLP._apply_bias`, whose kernels write and read 4, 2+4 and 4, 4 and 4, 4 and 2."""
_FILLED = (8.0, 8.0)
"""The same where rows are copied, to fill each expert's up to what casts take, and back. HybridEP
sends them filled up. **Source:** Megatron-Core 0.16, `quantization_padding`."""
_STASHED = (1.0, 2.0, 1.0)
"""Bytes of a number that is kept for backward where all of a step is a graph, each read and written
to get into pages and again to get out: of what enters, of both halves before the activation, and of
what enters the last product. **Source:** Megatron-Core, `paged_stash.py` (`moe_paged_stash` in the
recipes of whole graphs), 2026; what a fused expert saves in float8 and bfloat16."""
_IN_PIECES = ("Megatron-Core", "Megatron-Bridge")
"""Whose dense runs gather and add activations piece by piece beside products.

**Source:** Megatron-LM, README of release 0.8 (`--tp-comm-overlap`); Megatron-Bridge, release 0.4,
recipes/llama/llama3.py (`tp_comm_overlap=True`, turned off for nvfp4 in scripts/performance).
"""
_SCALED, _SCALED_FROM = "Megatron-Bridge", "25.11"
"""Whose float8 has one scale for a tensor, that of its very numbers, since this release.

**Source:** Megatron-Bridge, `scripts/performance/argument_parser.py` of 0.2.0 (`fp8_cs`, `fp8_mx`
and `fp8_sc` are all it runs in 8 bits) and `utils/precision.py` of 0.3.0 to 0.6.0; 0.1.0 had
delayed scaling too.
"""
_SUMS_APART = ("Megatron-LM SC'21", "MindSpeed")
"""Whose products do not add to the sums of gradients: Megatron-LM before release 3.0 of 2022, and
MindSpeed-LLM, whose launch scripts turn it off (`--no-gradient-accumulation-fusion`)."""


def training_case(row: Row) -> Case:
    """The step of a row.

    Raises:
        NotExpressed: something it takes is not stated, or is nothing a plan can say.
    """
    shape = replace(trained_shape(row), fused_attention=not row.source.startswith(_BY_SCORES))
    batch, sequence = _stated(row, "global_batch"), _stated(row, "seq")
    machine, chips = machine_of(row)
    recipe = recipe_of(row)
    layout = layout_line(row, chips, recipe)
    step = Step(
        shape=shape,
        dtype=_DTYPES.get(row.text("precision"), "bfloat16"),
        phase="train",
        batch=batch,
        sequence=sequence,
        layout=layout,
        chips=chips,
        precision=_precision(row),
        terms=_terms(row, shape, layout, recipe),
        graphs=_graphs(recipe),
        casts=_casts(row, recipe),
        beside=_beside(row, shape, recipe),
    )
    return Case(
        id=row.id,
        source=row.source,
        regime="training-moe" if shape.experts else "training-dense",
        machine=machine,
        network_bytes_per_s=network_of(row),
        measured_s=measured_step_s(row),
        parts=_parts(step, _share(row)),
        group=(
            row.source,
            row.machine,
            row.text("chips"),
            row.text("model"),
            row.text("seq"),
            row.text("precision"),
            row.noted("release"),
        ),
        work=float(batch * sequence),
        knobs=knobs(row),
    )


def _terms(row: Row, shape: Shape, layout: str, recipe: Recipe | None) -> Terms:
    """What kernels the run had and how it used them."""
    eager = row.source.startswith(_EAGER)
    sends = shape.topk if row.count("ep", 1) > 1 else 0
    by_kernels = recipe.by_kernels if recipe else row.source.startswith(_ROUTED)
    in_pieces = row.source.startswith(_IN_PIECES) and row.text("precision") != "nvfp4"
    return Terms(
        fusion=not eager,
        prefetch=not row.source.startswith(_LATE),
        graph=not eager and _graphs(recipe) in (None, ALL),
        copies=sends if by_kernels else 0,
        permuted=sends if row.source.startswith(_PERMUTED) else 0,
        paired=_paired(row, recipe) and "micro=" in layout,
        counted=recipe is not None and recipe.counts,
        attention="flash-1" if row.source.startswith(_FLASH_1) else "",
        pieces=in_pieces and not shape.experts,
        sums_apart=row.source.startswith(_SUMS_APART),
    )


def _precision(row: Row) -> str:
    """As stated; float8 without more is what the release's scripts run under that name."""
    stated = row.text("precision")
    if stated == "fp8" and row.source.startswith(_SCALED) and row.noted("release") >= _SCALED_FROM:
        return "fp8-cs"
    return stated


def _graphs(recipe: Recipe | None) -> tuple[str, ...] | None:
    """The modules that are captured graphs; None where nothing is known."""
    if recipe is None:
        return None
    return tuple(module for name in recipe.graph for module in _MODULES[name])


def _paired(row: Row, recipe: Recipe | None) -> bool:
    """Whether microbatches hide each other's sending, by the recipe or by the row."""
    return _PAIRS in row.text("note") or (recipe is not None and recipe.paired)


def _casts(row: Row, recipe: Recipe | None) -> int:
    """How many kernels cast what an expert reads."""
    if recipe is None or recipe.fused_experts:
        return 0
    return _CASTS.get(row.text("precision"), 0)


def _beside(row: Row, shape: Shape, recipe: Recipe | None) -> tuple[float, float]:
    """What experts read and write beside their products, for each number of a row."""
    found = NOTHING
    if recipe is None:
        return found
    if recipe.fused_experts:
        return _stashed(shape)
    if row.text("model").startswith("gpt-oss"):
        found = _BIASED
    if row.text("precision") in _CASTS and recipe.sent_by != "hybridep":
        found = (found[0] + _FILLED[0], found[1] + _FILLED[1])
    return found


def _stashed(shape: Shape) -> tuple[float, float]:
    """In forward, and in backward."""
    entering, halves, last = _STASHED
    each = 2 * (entering + (2 * halves + last) * shape.ffn / shape.hidden)
    return each, each


def _stated(row: Row, column: str) -> int:
    found = row.number(column)
    if found is None:
        raise NotExpressed(f"{column} is not stated")
    return int(found)


def measured_step_s(row: Row) -> float:
    """As published, or from the published rate: of tokens, or of FLOP where those are rounded.

    Raises:
        NotExpressed: the source gives no rate that a step time follows from.
    """
    step_s = row.number("measured_step_s")
    if step_s is not None:
        return step_s
    tokens = _stated(row, "global_batch") * _stated(row, "seq")
    chips = _stated(row, "chips")
    rate, each = row.number("tflops_chip"), row.noted_number("gflop_per_token")
    if rate is not None and each is not None:
        return tokens * each / (1e3 * rate * chips)
    speed = row.number("tok_s_chip")
    if speed is not None:
        return tokens / (speed * chips)
    raise NotExpressed("no step time follows from what is published")


def layout_line(row: Row, chips: int, recipe: Recipe | None = None) -> str:
    """The published layout as a user writes it, outermost axis first.

    Ranks of expert parallel are among those of data parallel, as in Megatron; of FSDP over the
    nodes (HSDP) each node of eight holds a whole copy.
    """
    tp, pp, vp, cp, ep = (row.count(name, 1) for name in ("tp", "pp", "vp", "cp", "ep"))
    if row.number("tp") is None and row.number("dp") is None:
        raise NotExpressed("the layout is not stated")
    data = chips // (tp * pp * cp)
    if data * tp * pp * cp != chips:
        raise NotExpressed(f"tp={tp}, pp={pp}, cp={cp} do not divide {chips} chips")
    words = [f"pp={pp}", *([f"vp={vp}"] if pp > 1 and vp > 1 else [])] if pp > 1 else []
    words += _data(row, data, ep)
    words += [f"cp={cp}"] if cp > 1 else []
    words += [f"tp={tp}"] if tp > 1 else []
    note = row.text("note")
    if tp > 1 and not any(mark in note or mark in row.source for mark in _NO_TOKEN_SPLIT):
        words.append("sp")
    micro = _stated(row, "global_batch") // (row.count("micro_batch", 1) * data)
    words += [f"micro={micro}"] if micro > 1 else []
    words += _recompute(row, recipe)
    return ",".join(words)


def _data(row: Row, data: int, ep: int) -> list[str]:
    """The axes that split the batch."""
    if data % ep:
        raise NotExpressed(f"ep={ep} does not divide dp={data}")
    expert = [f"ep={ep}"] if ep > 1 else []
    rest = data // ep
    if rest == 1:
        return expert
    if row.text("fsdp") == "1":
        if row.noted("sharding") == "HSDP":
            return [f"dp={rest // 8}", "fsdp=8", *expert]
        if row.noted("sharding") == "SHARD_GRAD_OP":
            return [f"zero1={rest}", *expert]
        return [f"fsdp={rest}", *expert]
    return [f"{'zero1' if row.source.startswith(_SPLIT_STATE) else 'dp'}={rest}", *expert]


def _recompute(row: Row, recipe: Recipe | None) -> list[str]:
    """What neither row nor recipe states is taken as none; a recipe that names norms and activation
    functions of experts asks for what `selective` does."""
    if recipe and {"layernorm", "moe_act"} <= set(recipe.recompute):
        return ["recompute=selective"]
    kind = row.text("recompute")
    if _share(row) is not None:
        return ["recompute=none"]  # of the blocks that are held
    return [f"recompute={kind}"] if kind in ("full", "selective") else []


def _share(row: Row) -> float | None:
    """Which share of its blocks a run computes again, by the FLOP that are counted with and without
    that: forward is a third of a step's. None where it is not a share."""
    hardware, model = row.noted_number("hfu"), row.number("mfu")
    if row.text("recompute") != "selective" or "whole blocks" not in row.text("note"):
        return None
    if hardware is None or not model:
        raise NotExpressed("the share of blocks that are computed again is not stated")
    return min(max(3 * (hardware / model - 1), 0.0), 1.0)


def _parts(step: Step, share: float | None) -> tuple[tuple[float, Step], ...]:
    """The step, or where a share of equal blocks is computed again so much of a step of each kind,
    as time and memory are straight lines in their number."""
    if not share:
        return ((1.0, step),)
    again = replace(step, layout=step.layout.replace("recompute=none", "recompute=full"))
    return tuple(part for part in ((1 - share, step), (share, again)) if part[0])


def knobs(row: Row) -> tuple[tuple[str, str], ...]:
    """What two rows of a source may differ in."""
    names = ("recompute", "tp", "pp", "vp", "cp", "ep", "fsdp", "micro_batch", "global_batch")
    return tuple((name, row.text(name) or "1") for name in names)
