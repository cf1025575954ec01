"""Collectives that go piece by piece beside products, and the closed form of two layers."""

import pytest
import torch

from simulate.steps import Feedforward
from supernode.capture import capture
from supernode.machine import load_machine
from supernode.partition import partition
from supernode.plan import Plan
from supernode.simulate import Terms, simulate
from supernode.simulate.pieces import in_pieces
from supernode.simulate.uses import Uses

CHIPS = 4
ALONE = Terms().without("jitter", "interference", "host")


def plan(width: int = 8192, tokens: int = 8192) -> Plan:
    with torch.device("meta"):
        model = Feedforward(width).to(torch.bfloat16)
        x = torch.empty(1, tokens, width, dtype=torch.bfloat16)
    program = capture(lambda x: model(x), model, (), (x,)).program
    return partition(program, f"tp={CHIPS},sp")


def times(made: Plan, terms: Terms) -> dict[str, float]:
    found: dict[str, float] = {}
    for span in simulate(made, load_machine("hgx-h100"), terms=terms).trace.spans:
        found[span.name] = found.get(span.name, 0.0) + span.end_s - span.start_s
    return found


def test_the_gather_goes_beside_the_product_that_reads_it_and_the_sum_beside_the_one_before():
    ops = plan().local.main.ops
    found = in_pieces(Uses.of(ops, ()))
    pairs = {ops[at].name: ops[beside].site.module for at, beside in found.items()}
    assert pairs == {"fabric.all_gather": "up", "fabric.reduce_scatter": "down"}


def test_one_piece_of_four_waits_and_the_others_are_hidden_by_long_products():
    made = plan()
    plain, pieces = times(made, ALONE), times(made, Terms(pieces=True).without("jitter", "host"))
    for name in ("fabric.all_gather", "fabric.reduce_scatter"):
        assert pieces[name] == pytest.approx(plain[name] / CHIPS)
    alone = times(made, Terms(pieces=True).without("jitter", "host", "interference"))
    assert alone["aten.mm"] == pytest.approx(plain["aten.mm"])
    chip = load_machine("hgx-h100").chip
    assert chip.comm_share is not None
    hidden_s = (1 - 1 / CHIPS) * (plain["fabric.all_gather"] + plain["fabric.reduce_scatter"])
    slowed_s = hidden_s * chip.comm_share.value
    assert pieces["aten.mm"] == pytest.approx(plain["aten.mm"] + slowed_s)


def test_short_products_take_as_long_as_what_goes_beside_them():
    made = plan(width=128, tokens=65536)
    plain, pieces = times(made, ALONE), times(made, Terms(pieces=True).without("jitter", "host"))
    whole_s = plain["fabric.all_gather"] + plain["fabric.reduce_scatter"]
    assert plain["aten.mm"] < whole_s / 2
    assert pieces["aten.mm"] == pytest.approx((1 - 1 / CHIPS) * whole_s)


def test_weights_that_are_gathered_and_gradients_are_not_cut():
    with torch.device("meta"):
        model = Feedforward(256).to(torch.bfloat16)
        x = torch.empty(8, 64, 256, dtype=torch.bfloat16)
    program = capture(lambda x: model(x), model, (), (x,)).program
    ops = partition(program, "fsdp=4").local.main.ops
    assert in_pieces(Uses.of(ops, ())) == {}
    without = simulate(plan(), load_machine("hgx-h100"), terms=ALONE.without("overlap"))
    all_at_once = Terms(pieces=True).without("jitter", "interference", "host", "overlap")
    assert simulate(plan(), load_machine("hgx-h100"), terms=all_at_once).step_s == without.step_s
