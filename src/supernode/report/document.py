"""Results as JSON-able dicts: SI units, which stand in the names of the keys.

What rests on the step time is None where the plan does not fit: it can't run there.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from supernode.machine import Machine
from supernode.simulate import Simulation
from supernode.trace import Json

Key = TypeVar("Key", bound=str)


def simulation_document(sim: Simulation) -> dict[str, Json]:
    """One simulation; times, memory and sent bytes are those of each chip."""
    return {
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
        "memory": {
            "peak_bytes": sim.memory.peak_bytes,
            "capacity_bytes": sim.capacity_bytes,
            "parts_bytes": _plain(sim.memory.parts),
            "modules_bytes": _plain(dict(sim.memory.modules)),
        },
        "guessed_share": sim.guessed_share,
    }


def _timed(sim: Simulation) -> dict[str, Json]:
    return {
        "step_s": sim.step_s,
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
    }


def _plain(values: Mapping[Key, float] | Mapping[Key, str]) -> dict[str, Json]:
    return {str(name): value for name, value in values.items()}


def comparison_document(sims: Iterable[Simulation]) -> list[Json]:
    """One simulation each, in the order given."""
    return [simulation_document(sim) for sim in sims]


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
