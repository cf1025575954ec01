"""Rows of collectives, of memory that is read or written from afar, and of single operators."""

import re

from supernode.accuracy.case import Access, Case, Collective, NotExpressed, Operator, Step
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
_ONE_SIDED = ("read", "write")
_LARGE, _LARGE_BYTES = ("large messages", "GB messages"), float(2**30)
_BESIDE, _NEAR, _ACROSS = 1, 15, 16
_APART = (
    ("die to die", _BESIDE),
    ("intra-node", _NEAR),
    ("same node", _NEAR),
    ("inter-node", _ACROSS),
    ("across nodes", _ACROSS),
)
"""How many dies away what a row says of a CloudMatrix is: two are a package, sixteen a node."""
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
    if row.text("op") in _ONE_SIDED:
        return _access_case(row)
    kind = _KINDS.get(row.text("op"))
    if kind is None:
        raise NotExpressed(f"a plan has no op for {row.text('op')}")
    size, measured_s = _measured(row)
    machine, _ = machine_of(row)
    chips = row.count("chips", 1)  # ranks, dies on Ascend
    return _links_case(row, machine, _collective(row, kind, size, chips), measured_s)


def _links_case(row: Row, machine: str, spec: Collective | Access, measured_s: float) -> Case:
    return Case(
        id=row.id,
        source=row.source,
        regime="collectives",
        machine=machine,
        network_bytes_per_s=network_of(row),
        measured_s=measured_s,
        parts=((1.0, spec),),
        knobs=(("bytes", row.text("bytes")), ("chips", row.text("chips"))),
    )


def _access_case(row: Row) -> Case:
    """A die reads or writes the memory of another one, or of its host."""
    note, host = row.text("note"), "NPU-CPU" in row.text("note")
    apart = next((dies for words, dies in _APART if words in note), None)
    if apart is None:
        raise NotExpressed("how far the memory is away is not stated")
    if host and apart == _ACROSS:
        raise NotExpressed("a plan has values in the memory of a chip's own host, of no other")
    size, measured_s = _measured(row)
    machine, _ = machine_of(row)
    spec = Access(
        place="host" if host else "peers",
        read=row.text("op") == "read",
        data_bytes=size,
        apart=apart,
    )
    return _links_case(row, machine, spec, measured_s)


def _collective(row: Row, kind: str, size: float, chips: int) -> Collective:
    if kind not in ("dispatch", "combine"):
        custom = "custom" in row.source
        return Collective(kind=kind, data_bytes=size, chips=chips, small_at_once=custom)
    once = not any(word in row.source for word in _EACH_COPY)
    return Collective(kind=kind, data_bytes=size, chips=chips, copies=_COPIES, once=once)


def _measured(row: Row) -> tuple[float, float]:
    """The size and its time: as printed, or from the bus bandwidth as nccl-tests defines it.

    A rate of one-sided accesses or large messages is that of a GiB.
    """
    op, n, rate = row.text("op"), row.count("chips", 1), row.number("bus_gb_s")
    size, latency_us = row.number("bytes"), row.number("latency_us")
    if size is not None and latency_us is not None:
        return size, latency_us / 1e6
    if size is None and (op in _ONE_SIDED or any(words in row.text("note") for words in _LARGE)):
        size = _LARGE_BYTES
    if size is None or rate is None:
        raise NotExpressed("the size or the time is not stated")
    sent = 1.0 if op in (*_ONE_SIDED, "dispatch", "combine") else (n - 1) / n
    return size, (2 if op == "all-reduce" else 1) * sent * size / (rate * 1e9)


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
