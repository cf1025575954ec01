"""Rows of served models: one prefill or decode step, and systems that do both.

A system in a steady state in which every request has `output` tokens decodes for all its requests
at once; each iteration is followed by its share of the prefills of newcomers, one request for every
`output` tokens. So the time of one output token is

    decode(requests) + requests / output × prefill(one request)

and without the second term where other chips prefill. Caches are half-way through the output.
"""

import re
from dataclasses import dataclass

from supernode.accuracy.case import Case, NotExpressed, Step
from supernode.accuracy.machines import machine_of, network_of
from supernode.accuracy.shapes import served_shape
from supernode.accuracy.truth import Row

_ACCEPTED = 0.7
"""The share of guessed tokens taken, where a row assumes one. **Source:** CM384, table 4."""
_FOUR_BITS = ("hgx-b200", "hgx-b300", "gb200-nvl72", "gb300-nvl72")
"""Machines that multiply four bits with eight. **Source:** vLLM's recipe for gpt-oss, 2025."""
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


def _case(row: Row, machine: str, measured_s: float, parts: list[tuple[float, Step]]) -> Case:
    return Case(
        id=row.id,
        source=row.source,
        regime="prefill" if row.text("phase") == "prefill" else "decode",
        machine=machine,
        network_bytes_per_s=network_of(row),
        measured_s=measured_s,
        parts=tuple(parts),
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


def _step(row: Row, batch: float, length: float, layout: str, chips: int, phase: str) -> Step:
    return Step(
        shape=served_shape(row),
        dtype="bfloat16",
        phase=phase,
        batch=max(1, round(batch)),
        sequence=round(length),
        layout=layout,
        chips=chips,
        copies=_routed_copies(row, phase),
        ahead=2 if phase == "decode" and "MTP on" in row.text("note") else 1,
        precision=_precision(row),
    )


def _precision(row: Row) -> str:
    """As stated; of gpt-oss the experts alone are in four bits, and are multiplied with float8
    where the chip has both, else widened."""
    if row.text("model").startswith("gpt-oss"):
        return "mxfp4-mxfp8" if row.machine in _FOUR_BITS else "mxfp4"
    return row.text("precision") or "bf16"


def _routed_copies(row: Row, phase: str) -> int:
    """Of prefills by DeepEP's kernels; those of CloudMatrix send every copy."""
    return 0 if phase != "prefill" or row.source.startswith("CM384") else served_shape(row).topk


def _expert_line(row: Row, chips: int) -> str:
    """`ep=32` of a row whose attention is data parallel over the same chips."""
    found = re.search(r"EP(\d+)", row.text("parallel"))
    if not found:
        raise NotExpressed("how the experts are split is not stated")
    ep = int(found[1])
    if chips % ep:
        raise NotExpressed(f"EP{ep} does not divide {chips} chips")
    return ",".join(f"{name}={n}" for name, n in (("dp", chips // ep), ("ep", ep)) if n > 1)


def _prefill(row: Row) -> Case:
    machine, chips = machine_of(row)
    length = _stated(row, "input_len")
    tokens = re.search(r"(\d+) tokens per (?:package|GPU)", row.text("note"))
    if not tokens:
        raise NotExpressed("the tokens of a batch are not stated")
    each = float(tokens[1])
    batch = each * _stated(row, "chips") / length
    step = _step(row, batch, length, _expert_line(row, chips), chips, "prefill")
    return _case(row, machine, each / _stated(row, "tok_s_chip"), [(1.0, step)])


def _decode(row: Row) -> Case:
    machine, chips = machine_of(row)
    each, note = _stated(row, "batch_per_chip"), row.text("note")
    length = _stated(row, "input_len") + (row.number("output_len_or_kv") or 0.0) / 2
    batch = each * _stated(row, "chips")
    step = _step(row, batch, length, _expert_line(row, chips), chips, "decode")
    taken = 1 + _ACCEPTED if "acceptance" in note else 1.0
    if "MTP on" in note and taken == 1.0:
        raise NotExpressed("how many guessed tokens are taken is not stated")
    token_s = row.number("tpot_ms")
    measured = each / _stated(row, "tok_s_chip") if token_s is None else token_s / 1e3
    return _case(row, machine, measured * taken, [(1.0, step)])


def _mixed(row: Row) -> Case:
    token_s = _stated(row, "tpot_ms") / 1e3
    if row.number("batch_per_chip") is None or row.number("input_len") is None:
        raise NotExpressed("the batch or the lengths are not stated")
    shape, output = served_shape(row), _stated(row, "output_len_or_kv")
    parallel = row.text("parallel")
    if "decode" in parallel:
        decoding = worker(parallel.split("decode")[1])
        requests = _concurrency(row) / decoding.count
        machine, _ = machine_of(row, decoding.chips)
        prefills = 0.0
    else:
        decoding = worker(parallel)
        requests = _concurrency(row) * decoding.chips / row.count("chips", 1)
        machine, _ = machine_of(row, decoding.chips)
        prefills = requests / output
    layout, chips = decoding.layout(bool(shape.experts)), decoding.chips
    length = _stated(row, "input_len")
    parts = [(1.0, _step(row, requests, length + output / 2, layout, chips, "decode"))]
    if prefills:
        # A prefill of fewer requests than a layout splits the batch into would leave chips idle.
        whole = max(1, decoding.dp)
        parts.append((prefills / whole, _step(row, whole, length, layout, chips, "prefill")))
    return _case(row, machine, token_s, parts)


def _concurrency(row: Row) -> float:
    stated = row.noted_number("concurrency")
    return stated or _stated(row, "batch_per_chip") * _stated(row, "chips")
