"""Results as JSON-able dicts: SI units, which stand in the names of the keys.

What rests on the step time is None where the plan does not fit: it can't run there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from supernode.machine import Machine
from supernode.plan import MemoryUse
from supernode.report.layouts import Explanation
from supernode.report.peaks import peaks_document
from supernode.report.rows import Laid
from supernode.search import Change
from supernode.simulate import Simulation
from supernode.trace import Json

Key = TypeVar("Key", bound=str)


def simulation_document(
    sim: Simulation, shares: Mapping[str, float] | None = None, changes: Sequence[Change] = ()
) -> dict[str, Json]:
    """One simulation; times, memory and sent bytes are those of each chip.

    `shares` say what limits the step, `changes` what would make it faster, where they were asked.
    """
    explained: dict[str, Json] = {}
    if shares is not None:
        explained["step_share_by_limit"] = _plain(shares)
        explained["changes"] = [
            {"name": each.name, "step_s": each.step_s, "gain": each.gain} for each in changes
        ]
    return {
        **explained,
        "program": sim.program,
        "layout": sim.layout,
        "machine": sim.machine,
        "chips": sim.chips,
        "fits": sim.fits,
        "tokens_per_step": sim.tokens,
        "model_flops": sim.model_flops,
        "dtype": sim.dtype,
        "peak_flops_per_s_per_chip": sim.peak_flops_per_s,
        **(_timed(sim) if sim.fits else dict.fromkeys(_timed(sim))),
        "sent_bytes": _plain(sim.sent_bytes),
        "sent_bytes_by_level": [
            {"level": level, "collective": kind, "sent_bytes": amount}
            for (level, kind), amount in sim.sent_by_level.items()
        ],
        "memory": {
            **_held(sim.memory),
            "reserved_bytes": sim.reserved_bytes,
            "outside_bytes": sim.outside_bytes,
            "capacity_bytes": sim.capacity_bytes,
        },
    }


def _timed(sim: Simulation) -> dict[str, Json]:
    low_s, high_s = sim.range_s
    return {
        "step_s": sim.step_s,
        "step_low_s": low_s,
        "step_high_s": high_s,
        "doubts": [
            {"reason": doubt.reason, "spread": doubt.spread, "concerns_s": part_s}
            for doubt, part_s in sim.doubts.items()
        ],
        "tokens_per_s": sim.tokens_per_s,
        "tokens_per_s_per_chip": sim.tokens_per_s_per_chip,
        "achieved_flops_per_s": sim.achieved_flops_per_s,
        "achieved_flops_per_s_per_chip": sim.achieved_flops_per_s / sim.chips,
        "mfu": sim.mfu,
        "compute_s": sim.compute_s,
        "comm_s": sim.comm_s,
        "exposed_comm_s": sim.exposed_comm_s,
        "roofline_s": sim.roofline_s,
        "critical_path_s": sim.critical_path_s,
        "step_s_by_cause": _plain(sim.critical_s),
        "step_s_by_kind_of_number": _plain(sim.by_kind),
        "power_w": sim.power_w,
        "energy_j": sim.energy_j,
        "tokens_per_joule": sim.tokens_per_joule,
        "guessed_share": sim.guessed_share,
    }


def _plain(values: Mapping[Key, float] | Mapping[Key, str]) -> dict[str, Json]:
    return {str(name): value for name, value in values.items()}


def comparison_document(sims: Sequence[Simulation], machines: Sequence[Machine] = ()) -> list[Json]:
    """One simulation each, in the order given, with the published peaks of its machine."""
    peaks = [{"machine_peaks": peaks_document(machine)} for machine in machines] or [{}] * len(sims)
    return [{**simulation_document(s), **found} for s, found in zip(sims, peaks, strict=True)]


def layouts_document(explained: Explanation) -> dict[str, Json]:
    """How a Plan lies and what it sends; bytes are those of each chip, in one step.

    `axes` are, for each dim, the mesh axes that split it, outermost first; `cp:8` splits each of 8
    equal groups of the dim.
    """
    return {
        "program": explained.program,
        "layout": explained.layout,
        "chips": explained.chips,
        "mesh": dict(explained.mesh),
        "time": dict(explained.time),
        "stored": [_laid(row) for row in explained.stored],
        "stored_bytes": explained.stored_bytes,
        "activations": [_laid(row) for row in explained.activations],
        "communication": [
            {
                "module": row.module,
                "phase": row.phase,
                "collective": row.collective,
                "axis": row.axis,
                "calls": row.calls,
                "sent_bytes": row.sent_bytes,
            }
            for row in explained.traffic
        ],
        "totals": [
            {
                "axis": row.axis,
                "chips": row.size,
                "collective": row.collective,
                "calls": row.calls,
                "sent_bytes": row.sent_bytes,
            }
            for row in explained.totals
        ],
        "sent_bytes": explained.sent_bytes,
        "memory": {"in_place": _held(explained.in_place), "by_run": _held(explained.by_run)},
    }


def _held(use: MemoryUse) -> dict[str, Json]:
    return {
        "peak_bytes": use.peak_bytes,
        "parts_bytes": _plain(use.parts),
        "modules_bytes": _plain(dict(use.modules)),
    }


def _laid(row: Laid) -> dict[str, Json]:
    return {
        "name": row.name,
        "role": row.role,
        "count": row.count,
        "dtype": row.whole.dtype,
        "shape": list(row.whole.shape),
        "axes": [list(dim) for dim in row.layout.dims],
        "partial": _plain(dict(row.layout.partial)),
        "piece_shape": list(row.piece.shape),
        "piece_bytes": row.piece.size_bytes,
        "bytes_per_chip": row.bytes_per_chip,
        "stage": _plain(dict(row.layout.only)),
        "place": row.layout.place,
        "reason": row.reason,
    }


def machines_document(machines: Iterable[Machine]) -> list[Json]:
    """One machine each, in order: totals, but for the link rates, per chip and one way."""
    return [_machine(machine) for machine in machines]


def _machine(machine: Machine) -> dict[str, Json]:
    row = machine.summary()
    return {
        "name": row["name"],
        "title": row["title"],
        "chips": row["chips"],
        "bf16_flops_per_s": row["bf16_flops_per_s"],
        "bf16_dtype": row["bf16_dtype"],
        "memory_bytes": row["memory_bytes"],
        "memory_bandwidth_bytes_per_s": row["memory_bandwidth_bytes_per_s"],
        "scale_up_bytes_per_s": row["scale_up_bytes_per_s"],
        "scale_out_bytes_per_s": row["scale_out_bytes_per_s"],
        "power_w": row["power_w"],
        "guessed_share": row["guessed"]["share"],
        "sources": [_plain(source) for source in row["sources"]],
    }
