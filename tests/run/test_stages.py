"""Stages of a pipeline on real worker processes: state where it lives, letters, failures."""

import os
import signal
import threading
import time

import pytest
import torch

from emulate import run_plan
from run.staged_plans import slow_stages_plan, staged_plan
from supernode.errors import ChipFailed
from supernode.run import Node, connect
from supernode.run.engine.letters import letters_of, pipe_of

X, PLACES = torch.tensor([0, 15, 3, 3]), torch.tensor([7, 0, 1, 1])
BAD = torch.tensor([7, 0, 8, 1])


@pytest.fixture(scope="module")
def two():
    with connect("cpu:2") as node:
        yield node


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    w, v = (torch.randn(rows, 8, generator=generator) for rows in (16, 8))
    return {"w": w, "v": v, "n": torch.tensor(0.5)}


def _eager(state: dict[str, torch.Tensor], x: torch.Tensor, i: torch.Tensor):
    c = state["w"][x] + state["v"][i]
    return c.sum(), c, {name: value + c.sum() for name, value in state.items()}


def test_letters_are_read_off_the_plan():
    plan = staged_plan()
    assert pipe_of(plan, 1) == (0, 1)
    letters = letters_of(plan, 0)
    assert letters == letters_of(plan, 1)
    assert [(each.source, each.target, each.shape) for each in letters] == [
        (0, 1, (4, 8)),
        (1, 0, ()),
    ]


def test_the_plan_means_what_it_says():
    state = _state()
    loss, c, new = _eager(state, X, PLACES)
    got = run_plan(staged_plan(), [*state.values(), X, PLACES])
    for value, want in zip(got, (loss, c, *new.values()), strict=True):
        assert torch.equal(value, want)


def test_steps_equal_plain_torch(two: Node):
    state = _state()
    loaded = two.load(staged_plan(), state)
    for turn in range(3):
        x, i = X.roll(turn), PLACES.roll(-turn)
        loss, c = loaded.step({"x": x, "i": i})
        want_loss, want_c, state = _eager(state, x, i)
        assert torch.equal(loss, want_loss)
        assert torch.equal(c, want_c)
        pulled = loaded.pull()
        assert pulled.keys() == state.keys()
        assert all(torch.equal(pulled[name], state[name]) for name in state)
    state = {"w": -state["w"], "v": state["v"] + 1, "n": torch.tensor(9.0)}
    loaded.push({"w": state["w"]})
    loaded.push({"v": state["v"], "n": state["n"]})
    loss, _ = loaded.step({"x": X, "i": PLACES})
    want_loss, _, state = _eager(state, X, PLACES)
    assert torch.equal(loss, want_loss)
    assert torch.equal(loaded.pull()["n"], state["n"])


def test_two_loaded_plans_take_turns(two: Node):
    states = [_state(), {name: 2 * value for name, value in _state().items()}]
    loaded = [two.load(staged_plan(), state) for state in states]
    for turn in range(4):
        which = turn % 2
        loss, _ = loaded[which].step({"x": X, "i": PLACES})
        want, _, states[which] = _eager(states[which], X, PLACES)
        assert torch.equal(loss, want)


def test_a_trace_tells_each_chip_its_own_ops(two: Node):
    loaded = two.load(staged_plan(), _state())
    (loss, _), trace = loaded.traced_step({"x": X, "i": PLACES})
    assert torch.equal(loss, _eager(_state(), X, PLACES)[0])
    names = [[span.name for span in trace.spans if span.chip == chip] for chip in range(2)]
    plan = staged_plan()
    assert names == [[op.name for op in plan.local_of(chip).main.ops] for chip in range(2)]
    spans = {(span.chip, span.name): span for span in trace.spans}
    assert spans[1, "fabric.receive"].stream == "comm"
    # A letter is there only after it was sent.
    assert spans[0, "fabric.send"].start_s <= spans[1, "fabric.receive"].end_s
    assert spans[1, "fabric.send"].start_s <= spans[0, "fabric.receive"].end_s


def test_after_a_failed_stage_no_letter_of_that_step_counts(two: Node):
    """Chip 0 has sent when chip 1 fails, and waits; the next step has other rows."""
    state = _state()
    loaded = two.load(staged_plan(), state)
    loaded.step({"x": X, "i": PLACES})
    state = _eager(state, X, PLACES)[2]
    for turn in range(3):
        with pytest.raises(ChipFailed) as caught:
            loaded.step({"x": X, "i": BAD})
        assert caught.value.wrong == (
            "aten.embedding raised IndexError: index out of range in self"
        )
        assert caught.value.where == "chip 1, model.py:7, in second, forward"
        assert caught.value.asked == "step toy on 2 chips, layout pp=2"
        assert torch.equal(loaded.pull()["w"], state["w"])
        x = (X + turn) % 16
        loss, c = loaded.step({"x": x, "i": PLACES})
        want_loss, want_c, state = _eager(state, x, PLACES)
        assert torch.equal(c, want_c)
        assert torch.equal(loss, want_loss)


@pytest.mark.slow
def test_a_stage_killed_in_a_step_stops_the_other_and_loses_nothing():
    with connect("cpu:2") as node:
        state = _state()
        loaded = node.load(staged_plan(), state)
        loaded.step({"x": X, "i": PLACES})
        state = _eager(state, X, PLACES)[2]
        slow = node.load(slow_stages_plan(), {"s": torch.zeros(8)})
        timer = threading.Timer(0.5, os.kill, (node.pids[1], signal.SIGKILL))
        timer.start()
        start = time.monotonic()
        with pytest.raises(
            ChipFailed, match="the process of chip 1 was ended by SIGKILL"
        ) as caught:
            slow.step({"x": torch.ones(1024, 1024)})
        assert time.monotonic() - start < 2.5
        # It waits for a letter, or is at the product before it sends one.
        assert caught.value.where.startswith("chip 1; chip 0 was at model.py:")
        pulled = loaded.pull()
        assert all(torch.equal(pulled[name], state[name]) for name in state)
        timer.join()
