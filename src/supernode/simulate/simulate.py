"""Plan + Machine → Simulation."""

from math import fsum

from supernode import ops
from supernode.machine import Machine
from supernode.plan import Plan
from supernode.simulate.played import play
from supernode.simulate.price import Prices
from supernode.simulate.range import doubts
from supernode.simulate.record import Recorder
from supernode.simulate.shares import (
    by_cause,
    by_kind,
    matmul_flops,
    power_w,
    sent_bytes,
    sent_levels,
)
from supernode.simulate.side_by_side import CostOf
from supernode.simulate.simulation import Simulation
from supernode.simulate.stages import Stages, stages_of
from supernode.simulate.terms import Handling, Terms
from supernode.trace import COMM, COMPUTE

ALL = Terms()


def simulate(
    plan: Plan,
    machine: Machine,
    *,
    tokens: int | None = None,
    cost: CostOf = ops.cost,
    terms: Terms = ALL,
) -> Simulation:
    """One step of `plan` on `machine`; `tokens` is how many a step handles.

    `terms` says what counts beyond ops and collectives, each of it to be switched off.

    One chip stands for all that run the same program, that is for all, or for those of its stage:
    what this takes does not grow with their number. A chip computes on one stream and communicates
    on another, as `schedule.py` says.

    Power is the machine's, all in, for the share of its chips that are used: the idle fraction
    always, the rest while a chip computes.

    Raises:
        LayoutError: the plan needs more chips than the machine has.
        UnknownOp: an op has no cost.
    """
    return Rehearsal(plan, cost).on(machine, tokens=tokens, terms=terms)


class Rehearsal:
    """A plan made ready: what does not depend on the machine's numbers is found once.

    `on` then answers for machine after machine, as `simulate` does, in a part of the time.
    """

    def __init__(self, plan: Plan, cost: CostOf = ops.cost) -> None:
        self.plan, self.cost = plan, cost
        self._matmuls = matmul_flops(plan.program, cost)
        self._ready: dict[Handling, tuple[Stages, Recorder]] = {}

    def on(self, machine: Machine, *, tokens: int | None = None, terms: Terms = ALL) -> Simulation:
        """One step of the plan on `machine`; arguments and errors as those of `simulate`."""
        plan, chip = self.plan, machine.chip
        machine.level_spanning(plan.mesh.size)
        stages, recorder = self._stages(terms.handling(chip))
        played = play(stages, Prices(machine=machine, mesh=plan.mesh, terms=terms))
        host_s, stretch = terms.host_s(machine), terms.stretch(chip, plan.mesh.size)
        trace = recorder.trace(machine, tokens, played, host_s)
        critical = played.critical()
        step_s, compute_s = played.times.step_s, played.mean_busy_s(COMPUTE)
        dtype = max(self._matmuls, key=lambda name: self._matmuls[name], default="bfloat16")
        return Simulation(
            program=plan.program.name,
            layout=plan.layout,
            machine=machine.name,
            machine_title=machine.title,
            chips=plan.mesh.size,
            tokens=tokens,
            trace=trace,
            step_s=step_s,
            compute_s=compute_s,
            comm_s=played.mean_busy_s(COMM),
            exposed_comm_s=trace.exposed_comm_s(stages.ranks[played.busiest]),
            roofline_s=played.roofline_s(),
            critical_path_s=played.critical_path_s(),
            critical_s=by_cause(played, trace, stretch, host_s),
            by_kind=by_kind(critical, machine.host_step_s if host_s else None),
            doubts=doubts(critical, machine, terms, plan.program),
            sent_bytes=sent_bytes(played),
            sent_by_level=sent_levels(played, machine),
            model_flops=fsum(self._matmuls.values()),
            dtype=dtype,
            peak_flops_per_s=chip.peak(dtype).value,
            memory=max(stages.memories, key=lambda used: used.peak_bytes),
            capacity_bytes=chip.memory.usable_bytes,
            outside_bytes=chip.memory.outside_bytes(_groups(plan)),
            workspace_bytes=chip.memory.workspace_bytes,
            replays=stages.replays,
            power_w=power_w(machine, plan.mesh.size, compute_s / step_s if step_s else 0.0),
        )

    def _stages(self, how: Handling) -> tuple[Stages, Recorder]:
        if how not in self._ready:
            stages = stages_of(self.plan, self.cost, how)
            self._ready[how] = stages, Recorder(self.plan, stages)
        return self._ready[how]


def _groups(plan: Plan) -> int:
    """In how many groups a chip talks: one along each axis."""
    return sum(size > 1 for _, size in plan.mesh.every_axis())
