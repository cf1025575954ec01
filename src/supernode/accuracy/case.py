"""Case: a published row as what a user would type to predict it."""

from dataclasses import dataclass, field
from typing import Literal

from supernode.models import Shape
from supernode.simulate import Terms
from supernode.simulate.launched import NOTHING

Regime = Literal["training-dense", "training-moe", "prefill", "decode", "collectives", "operators"]
REGIMES: tuple[Regime, ...] = (
    "training-dense",
    "training-moe",
    "prefill",
    "decode",
    "collectives",
    "operators",
)


class NotExpressed(Exception):
    """A row that can't be predicted, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`supernode simulate` of a model's step: what is captured, and how it is laid out.

    `terms` say what kernels the run had and how it used them; `graphs`, `casts` and `beside` how it
    launched ops and experts, as in `by_host` (None: as captured, in one graph). `cache` is what
    keys and values are kept in.
    """

    shape: Shape
    dtype: str
    phase: str
    batch: int
    sequence: int
    layout: str
    chips: int
    ahead: int = 1
    precision: str = "bf16"
    cache: str = ""
    terms: Terms = field(default_factory=Terms)
    graphs: tuple[str, ...] | None = None
    casts: int = 0
    beside: tuple[float, float] = NOTHING

    @property
    def capture_key(self) -> tuple[object, ...]:
        """What the captured Program depends on."""
        return (self.shape, self.dtype, self.phase, self.batch, self.sequence, self.ahead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A system in which a user asks again as soon as he is answered: what an output token takes.

    `decode` is one token for all requests that are out, `prompts` the prefill of as many newcomers
    as one pass takes in (None where other chips prefill). A request gets `output` tokens, after it
    has waited `wait_s` for the first. Prompts go in one pass with the tokens of others (`mixed`),
    or all others stand still; requests that are all alike and stand still for each other stay
    `together`: the newcomers of all of them come at one time. The chips wait `host_s` for each
    request between two passes.
    """

    decode: Step
    prompts: Step | None
    output: float
    wait_s: float = 0.0
    mixed: bool = True
    together: bool = False
    host_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One collective over all chips; `data_bytes` is the whole input of a chip, for an all-gather
    its whole output. `dispatch` and `combine` take `copies` of each token to its experts and back;
    `once` is for kernels that send it once to chips and nodes that hold several of them;
    `small_at_once` for libraries that add small arrays in one step."""

    kind: str
    data_bytes: float
    chips: int
    copies: int = 1
    once: bool = False
    small_at_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One op on one chip, `name` with sizes; or the half of a layer of `step` (`forward` …)."""

    name: str
    sizes: tuple[tuple[str, int], ...] = ()
    dtype: str = "bf16"
    step: Step | None = None
    half: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A chip brings a value from where it lives, or takes it there (`read` or not).

    `place` is `host`, or `peers`: the memory of a chip that is `apart` chips away.
    """

    place: str
    read: bool
    data_bytes: float
    apart: int


Spec = Step | Serving | Collective | Access | Operator


def steps_of(spec: Spec) -> tuple[Step, ...]:
    """The steps that a prediction of it needs."""
    if isinstance(spec, Serving):
        return (spec.decode, *([spec.prompts] if spec.prompts else []))
    step = spec.step if isinstance(spec, Operator) else spec
    return (step,) if isinstance(step, Step) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row to be predicted.

    The measured time `measured_s` is compared with the sum of `parts`, each so many times the time
    of what it specifies. `network_bytes_per_s` is
    that of the row where it is not the machine's own, per chip in one direction. Rows of one
    `group` differ in layout or batch alone, so that they can be ranked by what `work` a second
    they do; `knobs` are what rows may differ in.
    """

    id: str
    source: str
    regime: Regime
    machine: str
    measured_s: float
    parts: tuple[tuple[float, Spec], ...]
    network_bytes_per_s: float | None = None
    group: tuple[str, ...] = ()
    work: float = 1.0
    knobs: tuple[tuple[str, str], ...] = ()
