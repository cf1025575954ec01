"""Ops in a row as one task, and each block once, change nothing: the plain way is the reference."""

from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulate.op_by_op import simulate_op_by_op
from simulate.test_simulate import FOUR, gathering, locals_, machines
from simulate.test_terms import slowed
from supernode.capture import capture
from supernode.ir import Program
from supernode.machine import Machine, load_machine
from supernode.models import recipe
from supernode.partition import partition
from supernode.plan import Plan
from supernode.simulate import Terms, simulate
from tiny import plan

LAYOUTS = (
    "dp=8",
    "fsdp=8",
    "fsdp=2,tp=2,cp=2,micro=2",
    "zero1=4,tp=2,sp",
    "fsdp=4,micro=4,recompute=full",
    "pp=2,vp=2,tp=2,micro=4,recompute=selective",
    "pp=4,dp=2,micro=8,schedule=gpipe",
    "fsdp=2,micro=2,recompute=full,offload=all",
)
EXPERTS = ("dp=2,ep=4,micro=2", "pp=2,ep=4,micro=4,recompute=full")
BARE = Terms().without("fusion", "host", "interference", "jitter")


def assert_the_same(made: Plan, machine: Machine, terms: Terms | None = None) -> None:
    terms = terms or Terms()
    want, sim = simulate_op_by_op(made, machine, terms), simulate(made, machine, terms=terms)
    spans = [span for span in sim.trace.spans if span.stream != "host"]
    assert [span.name for span in spans] == want.names
    close = pytest.approx(sim.step_s, rel=1e-12)
    assert max(want.end_s, default=0.0) == close
    for got, times_s in (("start_s", want.start_s), ("end_s", want.end_s)):
        assert [getattr(span, got) for span in spans] == pytest.approx(
            times_s, rel=0, abs=1e-12 * sim.step_s
        )
    assert sim.critical_path_s == pytest.approx(want.chain_s, rel=1e-12)


@given(locals_(), machines(), st.sampled_from([0.0, 0.3]))
def test_any_ops(local: Program, target: Machine, share: float) -> None:
    assert_the_same(plan(local, FOUR), target)
    assert_the_same(plan(local, FOUR), slowed(comm_share=share) if share else target)


def test_collectives_that_are_issued_early() -> None:
    assert_the_same(gathering(6), slowed(comm_share=0.3))


def test_without_overlap_all_is_one_row() -> None:
    assert_the_same(gathering(3), slowed(comm_share=0.3), Terms(overlap=False))


@lru_cache
def captured(name: str) -> Program:
    found = recipe(name)
    if name == "deepseek-v3":
        found = found.with_shape({"layers": 5, "hidden": 512})
    job = found.build(batch=64, device="meta", sequence=64)
    return capture(job.step, job.model, job.optimizer, job.inputs, name=name).program


@pytest.mark.slow
@pytest.mark.parametrize(("on", "terms"), [("hgx-h100", Terms()), ("cloudmatrix384", BARE)])
@pytest.mark.parametrize(
    ("name", "line"),
    [("llama-tiny", line) for line in LAYOUTS] + [("deepseek-v3", line) for line in EXPERTS],
)
def test_layouts_of_models(name: str, line: str, on: str, terms: Terms) -> None:
    assert_the_same(partition(captured(name), line), load_machine(on), terms)
