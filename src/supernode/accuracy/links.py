"""Rows of collectives and of single operators."""

import re

from supernode.accuracy.case import Case, Collective, NotExpressed, Operator, Step
from supernode.accuracy.machines import machine_of, network_of
from supernode.accuracy.truth import Row
from supernode.models import Shape

_KINDS = {
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
    "reduce-scatter": "reduce_scatter",
    "all-to-all": "all_to_all",
    "dispatch": "dispatch",
    "combine": "combine",
}
_COPIES = 8
"""All published rows of dispatch and combine are of eight experts a token."""
_EACH_COPY = ("low-latency", "CM384")
"""Whose kernels send every copy of a token by itself."""
_MLA = {
    # What the tables leave open: two tokens of 128 heads (guessing one ahead) are bound by
    # arithmetic, one token of the 16 heads of an eighth by memory.
    "mla-attention compute-bound": (("b", 32), ("h", 128), ("t", 2), ("s", 4096)),
    "mla-attention memory-bound": (("b", 32), ("h", 16), ("t", 1), ("s", 4096)),
}


def collective_case(row: Row) -> Case:
    """One collective, or the all-to-all that takes tokens to their experts or back.

    Raises:
        NotExpressed: an op that no plan has, or no time is stated.
    """
    kind = _KINDS.get(row.text("op"))
    if kind is None:
        raise NotExpressed(f"a plan has no op for a one-sided {row.text('op')}")
    size = row.number("bytes")
    measured_s = _latency_s(row)
    if size is None or measured_s is None:
        raise NotExpressed("the size or the time is not stated")
    machine, chips = machine_of(row)
    chips = row.count("chips", 1)  # ranks, dies on Ascend
    return Case(
        id=row.id,
        source=row.source,
        regime="collectives",
        machine=machine,
        network_bytes_per_s=network_of(row),
        measured_s=measured_s,
        parts=((1.0, _collective(row, kind, size, chips)),),
        knobs=(("bytes", row.text("bytes")), ("chips", row.text("chips"))),
    )


def _collective(row: Row, kind: str, size: float, chips: int) -> Collective:
    if kind not in ("dispatch", "combine"):
        custom = "custom" in row.source
        return Collective(kind=kind, data_bytes=size, chips=chips, small_at_once=custom)
    once = not any(word in row.source for word in _EACH_COPY)
    return Collective(kind=kind, data_bytes=size, chips=chips, copies=_COPIES, once=once)


def _latency_s(row: Row) -> float | None:
    """As printed, or from the bus bandwidth as nccl-tests defines it."""
    latency = row.number("latency_us")
    if latency is not None:
        return latency / 1e6
    size, rate, n = row.number("bytes"), row.number("bus_gb_s"), row.count("chips", 1)
    if size is None or rate is None:
        return None
    if row.text("op") in ("dispatch", "combine"):
        return size / (rate * 1e9)
    return (2 if row.text("op") == "all-reduce" else 1) * (n - 1) / n * size / (rate * 1e9)


def operator_case(row: Row) -> Case:
    """A grouped matmul, attention on latents, or half a layer; on one die, where chips are two.

    Raises:
        NotExpressed: an op of another kind, or its shape is not stated.
    """
    name, dtype = row.text("op"), row.text("dtype")
    machine, _ = machine_of(row, 1)
    time_us = row.noted_number("time_us")
    if name.startswith("transformer-layer-"):
        assert time_us is not None
        operator = Operator(name=name, half=name.rpartition("-")[2], step=_layer(row))
        return _operator_case(row, machine, operator, time_us / 1e6)
    utilisation = row.number("utilisation")
    sizes = _MLA.get(name) or tuple(
        (key, int(value)) for key, value in re.findall(r"(\w+)=(\d+)", row.text("shape"))
    )
    if utilisation is None or not sizes or name == "decode-layer":
        raise NotExpressed(f"the shape or the time of {name} is not stated")
    # The time follows from the utilisation of the chip's peak, so it is measured in that of 1.
    operator = Operator(name=name, sizes=sizes, dtype=dtype)
    return _operator_case(row, machine, operator, 1 / utilisation)


def _operator_case(row: Row, machine: str, operator: Operator, measured_s: float) -> Case:
    return Case(
        id=row.id,
        source=row.source,
        regime="operators",
        machine=machine,
        measured_s=measured_s,
        parts=((1.0, operator),),
    )


def _layer(row: Row) -> Step:
    """The step of a small model with such layers, of which one is looked at."""
    sizes = dict(re.findall(r"(\w+)=(\d+)", row.text("shape")))
    tp = re.search(r"TP(\d+)", row.text("shape"))
    note, chips = row.text("note"), int(tp[1]) if tp else 1
    again = "full" if "full recompute" in note else "selective" if "selective" in note else ""
    words = [f"tp={chips}", *(["sp"] if "sequence parallel" in note else [])]
    words += [f"recompute={again}"] if again else []
    hidden, heads = int(sizes["h"]), int(sizes["heads"])
    return Step(
        shape=Shape(
            family="gpt",
            layers=4,
            hidden=hidden,
            heads=heads,
            vocab=51_200,
            bias=True,
            fused_attention=False,  # before FlashAttention
        ),
        dtype="float16",
        phase="train",
        batch=int(sizes["b"]),
        sequence=int(sizes["s"]),
        layout=",".join(words),
        chips=chips,
    )
