"""Machine: many chips, joined level by level."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Literal, TypedDict

from supernode.errors import InputError, LayoutError
from supernode.machine.chip import Chip
from supernode.machine.fit import Fit
from supernode.machine.sourced import Alternative, Source, Sourced

Topology = Literal["switch", "mesh", "cube-mesh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Groups of `chips` neighbouring chips that reach each other over one kind of link.

    `bandwidth_bytes_per_s` is what one chip sends over all its `links` together, in one direction;
    a large message reaches `efficiency` of it. `latency_s` is the time of the smallest message
    between two chips. On a `switch` all links of a chip serve any peer; on a `mesh` one link leads
    to each peer, so two chips share `bandwidth / links`; on a `cube-mesh` (DGX-1) to some peers
    one or two links lead, to the others none.

    `same_links` says that its links are those of the level inside: what crosses both shares them.
    `transport` holds what was measured of the library that moves data here; without it a message
    takes its latency and its share of the bandwidth. `experts` and `one_shot` are the same of
    kernels that send tokens to experts, and of those that add small arrays in one step; `access`
    is that of a chip that reads or writes the memory of a peer or a host itself.
    """

    name: str
    chips: int
    bandwidth_bytes_per_s: Sourced
    latency_s: Sourced
    efficiency: Sourced
    topology: Topology
    links: int
    same_links: bool = False
    transport: Fit | None = None
    experts: Fit | None = None
    one_shot: Fit | None = None
    access: Fit | None = None

    def first(self, chips: int) -> "Level":
        """This level cut down to `chips` chips: a mesh keeps only the links between them."""
        links = max(chips - 1, 1)
        if self.topology != "mesh" or links >= self.links:
            return replace(self, chips=chips)
        why = f"{links} of {self.links} links"
        bandwidth = self.bandwidth_bytes_per_s.scaled(links / self.links, why)
        return replace(self, chips=chips, links=links, bandwidth_bytes_per_s=bandwidth)


class Guesses(TypedDict):
    """How many of a machine's numbers are guessed."""

    count: int
    total: int
    share: float


class Summary(TypedDict):
    """A machine in one row: totals, but for the two link rates, which are per chip and one way."""

    name: str
    title: str
    chips: int
    bf16_flops_per_s: float
    bf16_dtype: str
    memory_bytes: float
    memory_bandwidth_bytes_per_s: float
    scale_up_bytes_per_s: float
    scale_out_bytes_per_s: float | None
    power_w: float
    guessed: Guesses
    sources: list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine as data: `chips` equal chips in nested groups, innermost level first.

    `power_w` is the whole machine, all in. `chip_unit` says what counts as one chip.
    `scale_out_bytes_per_s` is the network that leaves the machine, per chip, in one direction, of
    which messages reach `scale_out_efficiency` after `scale_out_latency_s`. `dies` is the level
    inside a chip that is a package: its `chips` count the dies, its rate is that of one die.
    `host_step_s` is what the host adds to a step: starting its graph, reading its result.
    `alternatives` holds what other sources say about the same numbers.
    """

    name: str
    title: str
    vendor: str
    chip: Chip
    chips: int
    levels: tuple[Level, ...]
    power_w: Sourced
    chip_unit: str = "chip"
    scale_out_bytes_per_s: Sourced | None = None
    scale_out_latency_s: Sourced | None = None
    scale_out_efficiency: Sourced | None = None
    scale_out_transport: Fit | None = None
    dies: Level | None = None
    host_step_s: Sourced | None = None
    notes: str = ""
    alternatives: tuple[Alternative, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def bf16_dtype(self) -> str:
        """What computes a bfloat16 matmul here: bfloat16, or float16 on chips that lack it."""
        return self.chip.unit("bfloat16")

    @property
    def bf16_flops_per_s(self) -> float:
        """The dense matmul peak of all chips, in the 16-bit type that `bf16_dtype` names."""
        return self.chips * self.chip.peak("bfloat16").value

    @property
    def memory_bytes(self) -> float:
        """The memory of all chips."""
        return self.chips * self.chip.memory.capacity_bytes.value

    @property
    def memory_bandwidth_bytes_per_s(self) -> float:
        """The memory bandwidth of all chips together, by the datasheet."""
        return self.chips * self.chip.memory.bandwidth_bytes_per_s.value

    def level_spanning(self, ranks_span: int) -> Level:
        """The innermost level whose groups hold `ranks_span` consecutive chips.

        The span is taken to start where a group starts. Raises LayoutError if it is wider than the
        machine, InputError if it is empty.
        """
        if ranks_span < 1:
            raise InputError(f"a span must be of 1 chip or more, not {ranks_span}")
        for level in self.levels:
            if level.chips >= ranks_span:
                return level
        raise LayoutError(
            f"{self.name} has {self.chips} chips, not {ranks_span}",
            fix="use fewer chips or a larger machine",
        )

    def with_chips(self, chips: int) -> "Machine":
        """The machine made of the first `chips` chips, with their share of the power.

        It is named `name:chips` and has no alternatives, which are about the whole machine. Raises
        InputError if there are not so many chips.
        """
        if not 1 <= chips <= self.chips:
            raise InputError(f"{self.name} has {self.chips} chips, can't take {chips} of them")
        if chips == self.chips:
            return self
        inner = tuple(level for level in self.levels if level.chips < chips)
        outer = self.level_spanning(chips).first(chips)
        share = f"share of {chips} of {self.chips} chips"
        return replace(
            self,
            name=f"{self.name}:{chips}",
            title=f"{self.title}, {chips} of {self.chips} chips",
            chips=chips,
            levels=(*inner, outer),
            power_w=self.power_w.scaled(chips / self.chips, share),
            alternatives=(),
        )

    def joined(self, count: int) -> "Machine":
        """`count` such machines on their scale-out network, as one with a level more.

        Raises LayoutError if the file does not say what that network is.
        """
        rate, latency = self.scale_out_bytes_per_s, self.scale_out_latency_s
        if rate is None or latency is None or self.scale_out_efficiency is None:
            fix = "give scale_out_bytes_per_s, scale_out_latency_s and scale_out_efficiency"
            raise LayoutError(f"{self.name} has no network to join {count} of them", fix=fix)
        if count == 1:
            return self
        network = Level(
            name="network",
            chips=count * self.chips,
            bandwidth_bytes_per_s=rate,
            latency_s=latency,
            efficiency=self.scale_out_efficiency,
            topology="switch",
            links=1,
            transport=self.scale_out_transport,
        )
        return replace(
            self,
            name=f"{count}x{self.name}",
            title=f"{count} x {self.title}",
            chips=network.chips,
            levels=(*self.levels, network),
            power_w=self.power_w.scaled(count, f"{count} machines"),
            alternatives=(),
        )

    def by_die(self) -> "Machine":
        """The same machine with each die of a package as a chip of its own.

        Raises LayoutError if its chips are not packages of dies.
        """
        if self.dies is None:
            raise LayoutError(f"{self.name} has no dies", fix=f"use {self.name}")
        count = self.dies.chips
        why = f"one of {count} dies"
        levels = tuple(
            replace(
                level,
                chips=level.chips * count,
                links=max(level.links // count, 1),
                bandwidth_bytes_per_s=level.bandwidth_bytes_per_s.scaled(1 / count, why),
            )
            for level in self.levels
        )
        scale_out = self.scale_out_bytes_per_s
        return replace(
            self,
            name=f"{self.name}@die",
            chip=self.chip.split(count, why),
            chips=self.chips * count,
            chip_unit="die",
            levels=(self.dies, *levels),
            scale_out_bytes_per_s=scale_out.scaled(1 / count, why) if scale_out else None,
            dies=None,
            alternatives=(),
        )

    def numbers(self) -> Iterator[tuple[str, Sourced]]:
        """Every number with its dotted key (`levels.node.latency_s`), without the alternatives."""
        return _numbers("", self)

    def summary(self) -> Summary:
        """The machine in one row, ready for JSON."""
        guessed = [number.kind == "guessed" for _, number in self.numbers()]
        scale_out = self.scale_out_bytes_per_s
        return Summary(
            name=self.name,
            title=self.title,
            chips=self.chips,
            bf16_flops_per_s=self.bf16_flops_per_s,
            bf16_dtype=self.bf16_dtype,
            memory_bytes=self.memory_bytes,
            memory_bandwidth_bytes_per_s=self.memory_bandwidth_bytes_per_s,
            scale_up_bytes_per_s=self.levels[-1].bandwidth_bytes_per_s.value,
            scale_out_bytes_per_s=scale_out.value if scale_out else None,
            power_w=self.power_w.value,
            guessed=Guesses(
                count=sum(guessed), total=len(guessed), share=sum(guessed) / len(guessed)
            ),
            sources=[{"name": s.name, "title": s.title, "url": s.url} for s in self.sources],
        )


def _numbers(key: str, part: object) -> Iterator[tuple[str, Sourced]]:
    if isinstance(part, Sourced):
        yield key, part
        return
    for name, inner in _parts(part):
        yield from _numbers(f"{key}.{name}" if key else name, inner)


def _parts(part: object) -> Iterator[tuple[str, object]]:
    if isinstance(part, Fit):
        yield from part.values.items()
    elif isinstance(part, Mapping):
        yield from ((str(name), inner) for name, inner in part.items())
    elif isinstance(part, tuple):
        yield from ((level.name, level) for level in part if isinstance(level, Level))
    elif is_dataclass(part):
        yield from ((f.name, getattr(part, f.name)) for f in fields(part))
