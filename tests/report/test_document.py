import json
from dataclasses import replace

import pytest

from supernode.plan import Mesh
from supernode.report import comparison_document, machines_document, simulation_document
from supernode.simulate import simulate
from tiny import layered, machine, plan

SIM = simulate(plan(layered(3, reduce_over="dp"), Mesh((("dp", 4),))), machine(), tokens=100)

KEYS = [
    "program",
    "layout",
    "machine",
    "chips",
    "fits",
    "tokens_per_step",
    "model_flops",
    "dtype",
    "peak_flops_per_s_per_chip",
    "step_s",
    "step_low_s",
    "step_high_s",
    "doubts",
    "tokens_per_s",
    "tokens_per_s_per_chip",
    "achieved_flops_per_s",
    "achieved_flops_per_s_per_chip",
    "mfu",
    "compute_s",
    "comm_s",
    "exposed_comm_s",
    "roofline_s",
    "critical_path_s",
    "step_s_by_cause",
    "step_s_by_kind_of_number",
    "power_w",
    "energy_j",
    "tokens_per_joule",
    "guessed_share",
    "sent_bytes",
    "sent_bytes_by_level",
    "memory",
]


def test_the_keys_of_a_simulation_stay() -> None:
    document = simulation_document(SIM)
    assert list(document) == KEYS
    assert json.loads(json.dumps(document)) == document
    assert document["step_s"] == SIM.step_s
    assert document["tokens_per_s"] == pytest.approx(100 / SIM.step_s)
    assert document["sent_bytes"] == {"all_reduce": 3 * 2 * 3 / 4 * 64 * 64 * 4}


def test_what_does_not_fit_has_the_same_keys_and_no_times() -> None:
    document = simulation_document(replace(SIM, capacity_bytes=1.0))
    assert list(document) == KEYS
    assert document["fits"] is False
    assert all(document[key] is None for key in KEYS[9:28])
    memory = document["memory"]
    assert isinstance(memory, dict)
    assert memory["peak_bytes"] == SIM.memory.peak_bytes
    assert memory["capacity_bytes"] == 1.0
    assert memory["reserved_bytes"] == SIM.reserved_bytes > SIM.memory.peak_bytes
    assert memory["outside_bytes"] == 0


def test_a_comparison_is_a_list_in_the_order_given() -> None:
    other = replace(SIM, machine="other")
    found = comparison_document([other, SIM])
    assert found == [simulation_document(other), simulation_document(SIM)]


def test_a_machine_is_described_by_its_totals() -> None:
    (found,) = machines_document([machine()])
    assert isinstance(found, dict)
    assert json.loads(json.dumps(found)) == found
    assert found["name"] == "tiny"
    assert found["chips"] == 8
    assert found["bf16_flops_per_s"] == 8 * 2e12
    assert found["memory_bytes"] == 8e9
    assert found["memory_bandwidth_bytes_per_s"] == 8e11
    assert found["scale_up_bytes_per_s"] == 1e9
    assert found["power_w"] == 8000
