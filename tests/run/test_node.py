"""Steps on real worker processes: same numbers as one chip, committed or not at all."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from emulate import run_plan
from run.plans import FEATURES, f32, moving_plan, one_op_plan, split_plan, training_plan
from supernode.errors import ChipFailed, DoesNotFit, InputError, UnknownName
from supernode.run import Node, connect


@pytest.fixture(scope="module")
def one():
    with connect("cpu:1") as node:
        yield node


@pytest.fixture(scope="module")
def two():
    with connect("cpu:2") as node:
        yield node


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(FEATURES, FEATURES, generator=generator)
    return w, torch.randn(8, FEATURES, generator=generator)


def _eager(w: torch.Tensor, x: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    y = x @ w
    return y.sum(), w - (x.t() @ y) * rate


@pytest.mark.parametrize("chips", [1, 2])
def test_steps_equal_plain_torch(chips: int, request: pytest.FixtureRequest):
    node: Node = request.getfixturevalue({1: "one", 2: "two"}[chips])
    w, x = _data()
    loaded = node.load(training_plan(chips), {"w": w, "count": 4.0, "r": 0.01})
    for _ in range(3):
        loss, y = loaded.step({"x": x})
        assert y.shape == (8, FEATURES)
        want_loss, w = _eager(w, x, 0.01)
        torch.testing.assert_close(loss, want_loss, rtol=1e-5, atol=1e-5)
        if chips == 1:
            assert torch.equal(loss, want_loss)
    state = loaded.pull()
    assert state["count"] == 7.0
    torch.testing.assert_close(state["w"], w, rtol=1e-5, atol=1e-5)
    if chips == 1:
        assert torch.equal(state["w"], w)


def test_host_numbers_keep_their_value_until_given_anew(one: Node):
    w, x = _data()
    loaded = one.load(training_plan(1), {"w": w, "count": 0.0})
    with pytest.raises(InputError, match="no value yet for r"):
        loaded.step({"x": x})
    loaded.step({"x": x}, {"r": 0.0})
    assert torch.equal(loaded.pull(["w"])["w"], w)
    loaded.step({"x": x})
    assert torch.equal(loaded.pull(["w"])["w"], w)


def test_shards_are_cut_and_put_together(two: Node):
    m, x = torch.arange(32.0).view(4, 8), torch.ones(4, 8)
    loaded = two.load(split_plan(2), {"m": m})
    assert torch.equal(loaded.pull()["m"], m)
    loaded.step({"x": x})
    assert torch.equal(loaded.pull()["m"], m + 1)
    loaded.push({"m": -m})
    loaded.step({"x": x})
    loaded.step({"x": x})
    assert torch.equal(loaded.pull()["m"], 2 - m)


def test_collectives_give_what_the_plan_means(two: Node):
    x = torch.arange(16.0).view(4, 4)
    plan = moving_plan()
    (want,) = run_plan(plan, [x])
    assert torch.equal(want, 2 * x)
    (got,) = two.load(plan, {}).step({"x": x})
    assert torch.equal(got, want)


def test_results_are_new_tensors(one: Node):
    loaded = one.load(one_op_plan("aten.neg", (), f32(8)), {"s": torch.zeros(8)})
    (first,) = loaded.step({"x": torch.ones(8)})
    loaded.step({"x": torch.zeros(8)})
    assert torch.equal(first, -torch.ones(8))


def test_a_traced_step_is_a_step_and_times_every_op(two: Node):
    w, x = _data()
    loaded = two.load(training_plan(2), {"w": w, "count": 0.0, "r": 0.01})
    (loss, _), trace = loaded.traced_step({"x": x})
    torch.testing.assert_close(loss, _eager(w, x, 0.01)[0])
    assert trace.chips == (0, 1)
    assert [span.name for span in trace.spans if span.chip == 1] == [
        op.name for op in loaded.plan.local.main.ops
    ]
    assert {span.stream for span in trace.spans if "fabric" in span.name} == {"comm"}
    assert trace.spans[0].module == "fc"
    assert min(span.start_s for span in trace.spans) == 0.0
    assert all(span.start_s <= span.end_s < 10 for span in trace.spans)


def test_wrong_inputs_are_refused_before_anything_runs(one: Node):
    w, x = _data()
    loaded = one.load(training_plan(1), {"w": w, "count": 0.0, "r": 0.01})
    for args, host, wrong in (
        ({}, {}, "0 of 1 inputs"),
        ({"x": x, "z": x}, {}, "no input named 'z'"),
        ({"x": x[:4]}, {}, r"x is f32\[4, 8\], expected f32\[8, 8\]"),
        ({"x": x.double()}, {}, r"x is f64\[8, 8\], expected"),
        ({"x": [1.0]}, {}, "must be a tensor"),
        ({"x": x.to("meta")}, {}, r"x has no data \(device meta\)"),
        ({"x": x.to_sparse()}, {}, r"x is laid out as torch\.sparse_coo"),
        ({"x": x}, {"r": x}, "must be a number"),
        ({"x": x}, {"q": 1.0}, "no input named 'q'"),
    ):
        with pytest.raises(InputError, match=wrong):
            loaded.step(args, host)
    with pytest.raises(InputError, match="w is f32"):
        loaded.push({"w": x[:1], "count": 5.0})
    assert torch.equal(loaded.pull()["w"], w)
    assert loaded.pull()["count"] == 0.0
    with pytest.raises(InputError, match="inputs are given"):
        one.load(training_plan(1), {"w": w})
    with pytest.raises(InputError, match="2 chips, the node has 1"):
        one.load(training_plan(2), {"w": w, "count": 0.0})
    with pytest.raises(UnknownName, match="no state named 'v'"):
        loaded.pull(["v"])


def test_addresses():
    with pytest.raises(UnknownName, match="did you mean local"):
        connect("locl")
    with pytest.raises(InputError, match="not a number of chips"):
        connect("local:x")
    with pytest.raises(InputError, match="not a number of chips"):
        connect("local:0")
    with pytest.raises(DoesNotFit, match="5000000 chips need 750 TB of memory"):
        connect("cpu:5000000")


def test_threads_take_turns(two: Node):
    w, x = _data()
    loaded = two.load(training_plan(2), {"w": w, "count": 0.0, "r": 0.0})

    def steps() -> None:
        for _ in range(50):
            loaded.step({"x": x})

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(steps) for _ in range(3)]:
            done.result()
    assert loaded.pull()["count"] == 150.0


def test_closing_twice_is_fine_and_use_after_it_is_refused():
    node = connect("cpu:1")
    loaded = node.load(one_op_plan("aten.neg", (), f32(8)), {"s": torch.zeros(8)})
    pids = node.pids
    node.close()
    node.close()
    again = one_op_plan("aten.neg", (), f32(8))
    for call in (
        lambda: loaded.step({"x": torch.ones(8)}),
        loaded.pull,
        lambda: node.load(again, {"s": torch.zeros(8)}),
    ):
        with pytest.raises(InputError, match="the node is closed"):
            call()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_load_that_fails_names_the_op():
    with connect("cpu:1") as node, pytest.raises(ChipFailed, match=r"no op 'aten\.nonsense'"):
        node.load(one_op_plan("aten.nonsense", (), f32(8)), {"s": torch.zeros(8)})


def test_a_step_is_a_doorbell(one: Node):
    """No pipe and no pickle in the way: far less than the round trips those would take."""
    loaded = one.load(one_op_plan("aten.neg", (), f32(8)), {"s": torch.zeros(8)})
    x = torch.ones(8)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        loaded.step({"x": x})
        times.append(time.perf_counter() - start)
    assert min(times) < 500e-6
