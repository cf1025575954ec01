"""What tensor parallelism gathers for products in few bits is cast before, and sent narrow."""

import pytest
import torch
from torch import nn

from simulate.steps import Feedforward, trained
from supernode.machine import load_machine
from supernode.ops import Cost, Product
from supernode.partition import partition
from supernode.plan import Plan
from supernode.simulate import Simulation, Terms, cost_in, simulate
from supernode.simulate.ask import Asks
from supernode.simulate.line import lines

WIDTH, TOKENS = 512, 4096


def plan(layout: str) -> Plan:
    with torch.device("meta"):
        model = nn.Sequential(Feedforward(WIDTH), Feedforward(WIDTH)).to(torch.bfloat16)
        x = torch.empty(4, TOKENS // 4, WIDTH, dtype=torch.bfloat16)
    return partition(trained(model, x), layout)


def simulated(made: Plan, precision: str) -> Simulation:
    cost = cost_in(precision, trains=True)
    return simulate(made, load_machine("hgx-b200"), cost=cost, terms=Terms().without("jitter"))


@pytest.mark.parametrize(("name", "share"), [("bf16", 1.0), ("mxfp8", 0.5), ("nvfp4", 0.28125)])
def test_gathers_of_activations_and_gradients_are_narrow_and_sums_are_not(name: str, share: float):
    made = plan("tp=4,sp")
    sent, wide = simulated(made, name).sent_bytes, simulated(made, "").sent_bytes
    assert sent["reduce_scatter"] == wide["reduce_scatter"]
    assert sent["all_gather"] == pytest.approx(share * wide["all_gather"])


def test_weights_are_gathered_as_they_are():
    made = plan("fsdp=4")
    assert simulated(made, "mxfp8").sent_bytes == simulated(made, "").sent_bytes


def casts_bytes(layout: str) -> dict[str, float]:
    """What a chip casts in a step, of activations and of gradients."""
    made = plan(layout)
    how = Terms().handling(load_machine("hgx-b200").chip)
    asks = Asks(made, cost_in("mxfp8", trains=True), how)
    found = {"activations": 0.0, "gradients": 0.0}
    for line in lines(made.local):
        for work in asks.works(line.block):
            what = asks.of[work.ask].what if work else None
            if isinstance(what, Cost) and isinstance(what.shape, Product):
                found["activations"] += what.shape.cast_bytes
                found["gradients"] += what.shape.gradient_cast_bytes
    return found


def test_chips_share_the_casts_of_what_lies_in_parts():
    """So that each casts as many numbers as with the batch split among them."""
    found = casts_bytes("tp=4,sp")
    assert found == casts_bytes("dp=4")
    assert found == dict.fromkeys(found, 2 * 4.0 * TOKENS * (WIDTH + 4 * WIDTH) / 4)
