"""Values that live in another place than their chip's memory, and when they are moved.

What is offloaded is fetched before the unit (a call of a repeated block, the update of a parameter)
that reads it, so that the transfer runs beside units that compute. What is not read for long, or is
the next value of what is offloaded, is stored, and its memory waited for later. By at least one
unit, and by as much more as memory allows.

**Source:** Rajbhandari et al., "ZeRO-Infinity", SC 2021, section 6 (prefetch, overlap); Rhu et al.,
"vDNN", MICRO 2016 (activations to the host and back).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from supernode.errors import LayoutError, near_matches
from supernode.ir import Phase, Program, Value, elsewhere, verify
from supernode.partition.prefetch import spaced
from supernode.partition.transfers import Away, with_transfers
from supernode.partition.update_order import Label, by_parameter
from supernode.partition.views import views_at_readers
from supernode.plan import AT_PEERS, ON_HOST, Plan

OFFLOAD = "offload"
KINDS = {
    "optimizer": "what the optimizer keeps from step to step",
    "parameters": "weights",
    "gradients": "gradients, from backward to the optimizer, and the sums of those of microbatches",
    "activations": "what forward makes and backward reads",
}
ALL = "all"
PLACES = (ON_HOST, AT_PEERS)
SMALL_BYTES = 4096
"""What is smaller stays on its chip: to begin a transfer would take longer than the transfer."""

_ROLES = {"optimizer": "state", "parameters": "param"}
_PHASES: dict[str, Phase] = {"gradients": "backward", "activations": "forward"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """What lives elsewhere, in the order of `KINDS`, and in which place."""

    kinds: tuple[str, ...]
    place: str = ON_HOST

    def __str__(self) -> str:
        kinds = ALL if self.kinds == tuple(KINDS) else "+".join(self.kinds)
        return kinds if self.place == ON_HOST else f"{kinds}@{self.place}"


def parse_offload(value: str, line: str) -> Offload:
    """What `optimizer+activations@peers` says.

    Raises:
        LayoutError: an unknown kind or place.
    """
    words, at, place = value.partition("@")
    place = place if at else ON_HOST
    if place not in PLACES:
        fix = near_matches(place, PLACES)
        raise LayoutError(f"unknown place {place!r}", asked=f"layout {line}", fix=fix)
    chosen = words.split("+")
    for word in chosen:
        if word not in (*KINDS, ALL):
            raise LayoutError(
                f"unknown {OFFLOAD}={word}" if word else f"expected {OFFLOAD}=KIND",
                asked=f"layout {line}",
                fix=f"{', '.join(KINDS)} or {ALL}; several are joined by +",
            )
    kinds = tuple(kind for kind in KINDS if kind in chosen or ALL in chosen)
    return Offload(kinds=kinds, place=place)


def offloaded(plan: Plan, offload: Offload) -> Plan:
    """`plan` with values in another place.

    Results are unchanged, bit for bit. What has fewer than `SMALL_BYTES` stays, and so does what
    shares its memory with values that can't be stored by themselves (slices of one tensor).

    Raises:
        LayoutError: a place that this plan has not.
    """
    if offload.place == AT_PEERS and plan.mesh.size == 1:
        raise LayoutError(
            f"{OFFLOAD}={offload} needs the memory of another chip, there is one chip",
            asked=f"layout {plan.layout}",
            fix=f"leave out @{AT_PEERS} for the memory of the host, or use more chips",
        )
    sizes = [stage.size for stage in plan.mesh.stages]
    if offload.place == AT_PEERS and (sizes != sizes[::-1] or any(plan.inside)):
        raise LayoutError(
            "chips of stages that are no mirror of each other keep nothing for each other",
            asked=f"layout {plan.layout}",
            fix=f"offload to the host: {OFFLOAD}={replace(offload, place=ON_HOST)}",
        )
    chosen = _chosen(plan, plan.programs, offload)
    prepared = [_prepared(program, chosen) for program in plan.programs]
    moved: list[Program] = []
    for rank, (program, labels) in zip(plan.kinds(), prepared, strict=True):
        # Chips that run the same ops move the same values: those of the largest pieces decide.
        sizes, _ = prepared[plan.largest_kind(rank)]
        here = {i for i in chosen if _size_bytes(program.main.inputs[i])}
        away = Away(
            place=offload.place,
            inputs=frozenset(here),
            made_in=frozenset(_PHASES[kind] for kind in offload.kinds if kind in _PHASES),
            large=_large(sizes),
        )
        moved.append(verify(with_transfers(program, labels, away)))
    homes = {i for program in moved for i in _away_inputs(program)}
    plan = replace(
        plan,
        local=moved[0],
        variants=tuple(moved[1:]),
        inputs=tuple(
            layout.moved_to(offload.place) if layout is not None and i in homes else layout
            for i, layout in enumerate(plan.inputs)
        ),
        outputs=tuple(
            layout.moved_to(offload.place) if layout is not None and source in homes else layout
            for layout, source in zip(plan.outputs, plan.program.updates, strict=True)
        ),
    )
    return spaced(plan)


def _chosen(plan: Plan, programs: Sequence[Program], offload: Offload) -> set[int]:
    """The inputs that are offloaded: of a kind that is, large enough, and read by some chip."""
    roles = {_ROLES[kind] for kind in offload.kinds if kind in _ROLES}
    found: set[int] = set()
    for program in programs:
        read = {value.id for op in program.main.ops for value in op.inputs}
        found |= {
            i
            for i, (port, value) in enumerate(zip(program.inputs, program.main.inputs, strict=True))
            if port.role in roles and value.id in read and _size_bytes(value) >= SMALL_BYTES
        }
    return found


def _prepared(program: Program, chosen: set[int]) -> tuple[Program, list[Label]]:
    """The optimizer parameter by parameter, and views of weights where they are read."""
    ordered, labels = by_parameter(program)
    ports = zip(program.inputs, program.main.inputs, strict=True)
    weights = {
        value.id for i, (port, value) in enumerate(ports) if i in chosen and port.role == "param"
    }
    return views_at_readers(ordered, labels, weights)


def _large(program: Program) -> frozenset[int]:
    made = (value for op in program.main.ops for value in op.outputs)
    return frozenset(value.id for value in made if _size_bytes(value) >= SMALL_BYTES)


def _size_bytes(value: Value) -> int:
    return value.type.size_bytes


def _away_inputs(program: Program) -> set[int]:
    away = elsewhere(program.main)
    return {i for i, value in enumerate(program.main.inputs) if value.id in away}
