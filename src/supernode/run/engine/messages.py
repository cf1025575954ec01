"""What a node and its workers send each other over a pipe, outside the path of a step."""

from dataclasses import dataclass

from supernode.errors import SupernodeError
from supernode.kernels import Origin
from supernode.plan import Plan
from supernode.run.engine.window import Spot


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """To a worker: get ready to run `plan`.

    `arguments` say where, in the node's arena, the global tensors of the step's arguments will
    lie, by input; `kernels` where the kernels are written that the plan runs. `memory_bytes` is
    what the chip may use of its memory, if that is limited.
    """

    number: int
    plan: Plan
    kernels: tuple[Origin, ...]
    arguments: dict[int, Spot]
    numbers: Spot
    memory_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """From a worker: where its pieces lie.

    `state` gives, by input, one spot for each epoch (a single one if the step never changes it);
    `results` one for each output that is a result.
    """

    state: dict[int, tuple[Spot, ...]]
    results: dict[int, Spot]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTimes:
    """From a worker: when each op of the last step started and ended, in execution order.

    `memory_bytes` is the most that the chip held while each of them ran, where that was asked.
    """

    times_ns: tuple[tuple[int, int], ...]
    memory_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """From a worker: why it has left its command; `own` unless another chip stopped it."""

    error: SupernodeError
    own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """To a worker: everything is as before the command that came to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """From a worker: it waits for its doorbell."""


Message = Load | Loaded | OpTimes | Failed | Recover | Ready
