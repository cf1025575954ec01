from dataclasses import replace

import pytest

from supernode import ops
from supernode.capture import capture
from supernode.machine import what_if
from supernode.models import recipe
from supernode.partition import partition
from supernode.plan import Mesh, replay, requests
from supernode.simulate import Rehearsal, simulate
from supernode.simulate import reserved as module
from supernode.simulate.ask import Asks
from supernode.simulate.line import lines
from supernode.simulate.reserved import Holder, Replays
from supernode.simulate.schedule import schedule_stages
from supernode.simulate.terms import Handling
from supernode.units import MIB
from tiny import layered, machine, overhead, plan
from vectors import param, program, vector

FOUR = Mesh((("dp", 2), ("tp", 2), ("cp", 1)))
SMALL = plan(layered(3, reduce_over="dp"), FOUR)
"""Matrices of 16 KiB, all of which lie in one segment of 2 MiB."""


def test_a_chip_reserves_whole_segments() -> None:
    sim = simulate(SMALL, machine())
    assert sim.memory.peak_bytes < 2 * MIB == sim.reserved_bytes == sim.taken_bytes
    assert simulate(SMALL, machine(capacity_bytes=2 * MIB)).fits
    assert not simulate(SMALL, machine(capacity_bytes=2 * MIB - 1)).fits


def test_the_driver_collectives_and_libraries_take_their_part() -> None:
    held = overhead(context=3 * MIB, communicator=5 * MIB, workspace=32 * MIB, usable=0.5)
    needed = (3 + 2 * 5) + (32 + 2)  # chips talk along two axes
    sim = simulate(SMALL, machine(overhead=held, capacity_bytes=2 * needed * MIB))
    assert sim.capacity_bytes == sim.taken_bytes == needed * MIB
    assert sim.reserved_bytes == 34 * MIB
    assert sim.fits
    for more in ("context_bytes", "communicator_bytes", "workspace_bytes"):
        number = getattr(held, more)
        larger = replace(held, **{more: replace(number, value=number.value + 1)})
        assert not simulate(SMALL, machine(overhead=larger, capacity_bytes=2 * needed * MIB)).fits


@pytest.mark.parametrize("layout", ["", "fsdp=2", "tp=2,recompute=full", "pp=2,micro=4"])
def test_what_is_reserved_is_that_of_the_fullest_chip(layout: str) -> None:
    job = recipe("llama-tiny").build()
    captured = capture(job.step, job.model, job.optimizer, job.inputs).program
    made = partition(captured, layout)
    sim = simulate(made, machine())
    programs = [local for _, local in made.stages()]
    asks = Asks(made, ops.cost, Handling(fusion=False, overlap=True))
    schedules = schedule_stages([list(lines(local)) for local in programs], asks)
    pairs = zip(programs, schedules, strict=True)
    each = [replay(requests(local, early=plan.early)).reserved_bytes for local, plan in pairs]
    assert schedules[0].early or layout != "fsdp=2"
    assert sim.reserved_bytes == max(each)
    assert sim.memory.peak_bytes <= sim.reserved_bytes


def test_steps_are_replayed_when_it_is_asked_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def counting(requests: object, room_bytes: float) -> object:
        asked.append(room_bytes)
        return replay(requests, room_bytes)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "replay", counting)
    rehearsal = Rehearsal(SMALL)
    sims = [rehearsal.on(what_if(machine(), f"chip.memory.capacity={f}x")) for f in (1, 2, 0.001)]
    assert asked == []
    assert [sim.fits for sim in sims] == [True, True, False]
    assert len({sim.reserved_bytes for sim in sims}) == 1
    assert len(asked) == 2  # on any chip that is large enough, and on the one that is not


def test_a_chip_that_holds_nearly_as_much_may_be_the_one_that_does_not_fit() -> None:
    def holder(*sizes: int) -> Holder:
        held = tuple((vector(i, size), param(str(i))) for i, size in enumerate(sizes))
        return Holder(program=program(held, ()), early=(), lent_bytes=0, peak_bytes=sum(sizes))

    even, odd = holder(20 * MIB), holder(18 * MIB + 1, MIB // 2)
    found = Replays([even, odd], {}).on(21 * MIB, 0)
    assert (found.reserved_bytes, found.fits) == (22 * MIB, False)
    assert Replays([even], {}).on(21 * MIB, 0).fits
    assert Replays([even, odd], {}).on(22 * MIB, 0).fits
