"""The layout line a user writes, `dp=2,tp=4,sp`, as a mesh and what each axis splits.

A scheme is a row of data: which factors of the step its axis splits, and which of the values that
live from step to step it keeps in parts. Nothing else in supernode knows the names of schemes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from supernode.errors import LayoutError, near_matches
from supernode.partition.offload import OFFLOAD, Offload, parse_offload
from supernode.partition.pipeline import Pipeline
from supernode.partition.recompute import MODEL, MODES
from supernode.partition.schedules import SCHEDULES
from supernode.plan import Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """What an axis of that name does.

    `batch`: splits the first dim of the step's arguments. `inner`: splits one dim of each weight
    matrix, the one the residual stream does not have. `tokens`: splits the second dim of the
    arguments, where no inner dim is split. `experts`: splits the first dim of the matrices that
    sorted tokens are multiplied with in groups. `keeps`: roles of the values that are stored in
    parts. `time`: its parts run one after another on the same chips, not side by side on several.
    """

    batch: bool = False
    inner: bool = False
    tokens: bool = False
    experts: bool = False
    keeps: tuple[str, ...] = ()
    time: bool = False
    summary: str


SCHEMES = {
    "dp": Scheme(batch=True, summary="data parallel: the batch is split"),
    "zero1": Scheme(
        batch=True,
        keeps=("state",),
        summary="ZeRO-1: the batch is split, optimizer state is kept in parts",
    ),
    "fsdp": Scheme(
        batch=True,
        keeps=("state", "param"),
        summary="ZeRO-3: the batch is split, weights and optimizer state are kept in parts",
    ),
    "ep": Scheme(
        batch=True,
        experts=True,
        summary="expert parallel: the batch and the experts are split, tokens go where theirs are",
    ),
    "cp": Scheme(tokens=True, summary="context parallel: the tokens of each sequence are split"),
    "tp": Scheme(inner=True, summary="tensor parallel: heads, hidden units and vocabulary"),
    "micro": Scheme(
        batch=True, time=True, summary="microbatches: parts of the batch one after another"
    ),
}
SEQUENCE = "sp"
"""The flag that lets every tp axis split tokens too where no inner dim is split."""
HELD = ("ep", "tp")
"""`ep=tp`: the tp axis splits experts, each of them whole, in place of their hidden units. Its
chips have the same tokens, so each takes the rows of its own experts, and their sums add up."""


TURNS = "turns"
"""The flag with which microbatches take turns: one computes while another communicates."""
RECOMPUTE = "recompute"
"""`recompute=full`: which activations are computed again in backward; see `MODES`."""
STAGES, CHUNKS, ORDER, CUT = "pp", "vp", "schedule", "cut"
"""`pp=4,vp=2,schedule=1f1b`: stages of a pipeline, chunks a stage, the order of tasks.

`pp=tp=4/dp=2+tp=2` gives each of two stages a layout of its own, `pp=1/dp=2` has one chip in the
first. `cut=layers.3/layers.7` names the modules that chunks begin with."""
WORDS = (RECOMPUTE, STAGES, CHUNKS, ORDER, CUT, OFFLOAD)
"""What stands in a line with a value and is no axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the mesh with the scheme it follows."""

    name: str
    size: int
    scheme: Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A layout line: its pipeline, if it has one; the axes of a stage, those of time last; which
    activations are computed again; what lives in another place.

    Where stages differ, `stages` are their lines, and the axes are those of time alone.

    With `turns`, parts that follow each other in time take turns instead.

    Axes of size 1 are dropped; without any it is for one chip.
    """

    axes: tuple[Axis, ...]
    turns: bool = False
    recompute: str = MODEL
    pipeline: Pipeline | None = None
    stages: tuple["Line", ...] = ()
    offload: Offload | None = None

    @property
    def chips(self) -> int:
        """How many chips it is for; parts that follow each other in time share theirs."""
        if self.stages:
            return sum(stage.chips for stage in self.stages)
        stages = self.pipeline.stages if self.pipeline else 1
        return stages * math.prod(axis.size for axis in self.axes if not axis.scheme.time)

    @property
    def parts(self) -> int:
        """In how many parts that follow each other in time the batch is split."""
        return math.prod(axis.size for axis in self.axes if axis.scheme.time)

    def __str__(self) -> str:
        words = [f"{axis.name}={axis.size}" for axis in self.axes]
        if any(axis.scheme.inner and axis.scheme.tokens for axis in self.axes):
            words.append(SEQUENCE)
        if any(axis.scheme.inner and axis.scheme.experts for axis in self.axes):
            words.append("=".join(HELD))
        if self.turns:
            words.append(TURNS)
        if self.recompute != MODEL:
            words.append(f"{RECOMPUTE}={self.recompute}")
        if self.pipeline is not None:
            inside = "/".join(str(stage).replace(",", "+") or "1" for stage in self.stages)
            words.insert(0, f"{STAGES}={inside or self.pipeline.stages}")
            if self.pipeline.chunks > 1:
                words.insert(1, f"{CHUNKS}={self.pipeline.chunks}")
            words.append(f"{ORDER}={self.pipeline.schedule}")
            if self.pipeline.begins:
                words.append(f"{CUT}={'/'.join(self.pipeline.begins)}")
        if self.offload is not None:
            words.append(f"{OFFLOAD}={self.offload}")
        return ",".join(words)


def parse_line(line: str, chips: int | None = None) -> Line:
    """What `line` says.

    Raises:
        LayoutError: malformed, an unknown scheme, one named twice, or sizes that do not multiply
            to `chips`.
    """
    axes: list[Axis] = []
    words: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in line.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if part in (SEQUENCE, TURNS) or (equals and name in WORDS) or (name, value) == HELD:
            words[name] = value
        else:
            axes.append(_axis(part, line))
    stages = _stages(words.get(STAGES, ""), line)
    if stages:
        words[STAGES] = str(len(stages))
        _check_outside(axes, stages, words, line, chips)
        if len(set(stages)) == 1:  # as if written once
            axes, stages = [*stages[0].axes, *axes], ()
    recompute = _mode(words.get(RECOMPUTE, MODEL), line)
    pipeline = _pipeline(words, line)
    offload = parse_offload(words[OFFLOAD], line) if OFFLOAD in words else None
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            fix = f"give {name} once, with the product of the sizes"
            raise LayoutError(f"{name} is named twice", asked=f"layout {line}", fix=fix)
    if not stages:
        _check_product(axes, pipeline, line, chips)
    if SEQUENCE in words:
        if "tp" not in names:
            raise LayoutError("sp needs a tp axis", asked=f"layout {line}", fix="add tp=N")
        axes = [_with_tokens(axis) if axis.scheme.inner else axis for axis in axes]
    if HELD[0] in words:
        axes = _with_experts(axes, line)
    axes = [axis for axis in axes if axis.size > 1]
    space = [axis for axis in axes if not axis.scheme.time]
    time = [axis for axis in axes if axis.scheme.time]
    if TURNS in words:
        _check_turns(time, pipeline, line)
    found = Line(
        axes=(*space, *time),
        turns=TURNS in words,
        recompute=recompute,
        pipeline=pipeline,
        stages=stages,
        offload=offload,
    )
    if pipeline is not None:
        pipeline.check_parts(found.parts, line)
        pipeline.check_begins(line)
    return found


def mesh_of(axes: tuple[Axis, ...]) -> Mesh:
    """The mesh with these axes, the last one between neighbouring ranks."""
    return Mesh(tuple((axis.name, axis.size) for axis in axes))


def _mode(value: str, line: str) -> str:
    if value not in MODES and not value.isdecimal():
        fix = f"{', '.join(MODES)}, or a number: FLOP for each byte not held"
        raise LayoutError(f"unknown {RECOMPUTE}={value}", asked=f"layout {line}", fix=fix)
    return value


def _stages(value: str, line: str) -> tuple[Line, ...]:
    """The line of each stage, where `pp` gives each one its own."""
    if "/" not in value and "=" not in value:
        return ()
    return tuple(_stage(part.strip(), line) for part in value.split("/"))


def _stage(part: str, line: str) -> Line:
    if part == "1":
        return Line(axes=())
    words = [word.strip() for word in part.split("+")]
    for word in words:
        name, equals, _ = word.partition("=")
        name = name.strip()
        timed = name in SCHEMES and SCHEMES[name].time
        if (equals and name in WORDS) or timed:
            raise LayoutError(
                f"{name} is not for one stage",
                asked=f"layout {line}",
                fix="write it outside of pp: pp=tp=4/dp=2+tp=2,micro=8,schedule=1f1b",
            )
        if not equals and word != SEQUENCE:
            raise LayoutError(
                f"expected NAME=SIZE or 1 for a stage, got {word!r}",
                asked=f"layout {line}",
                fix="write it like pp=tp=4/dp=2+tp=2 or pp=1/dp=2",
            )
    try:
        return parse_line(",".join(words))
    except LayoutError as error:
        error.asked = f"layout {line}"
        raise


def _check_outside(
    axes: list[Axis],
    stages: tuple[Line, ...],
    words: Mapping[str, str],
    line: str,
    chips: int | None,
) -> None:
    """What stands beside stages that each have a line of their own."""
    outside = [axis.name for axis in axes if not axis.scheme.time]
    outside += [SEQUENCE] if SEQUENCE in words else []
    if outside:
        raise LayoutError(
            f"{outside[0]} stands outside of the stages, which have axes of their own",
            asked=f"layout {line}",
            fix=f"give it to each stage that has it: pp=.../...+{outside[0]}",
        )
    if len(stages) == 1:
        raise LayoutError(
            "pp has one stage", asked=f"layout {line}", fix="name two stages or more, or leave pp"
        )
    total = sum(stage.chips for stage in stages)
    if chips is not None and total != chips:
        counts = " + ".join(str(stage.chips) for stage in stages)
        raise LayoutError(
            f"the stages have {counts} = {total} chips, there are {chips} chips",
            asked=f"layout {line} on {chips} chips",
            fix=f"choose stages whose chips add up to {chips}",
        )


def _pipeline(words: Mapping[str, str], line: str) -> Pipeline | None:
    sizes = [words.get(name, "1") for name in (STAGES, CHUNKS)]
    for name, size in zip((STAGES, CHUNKS), sizes, strict=True):
        if not size.isdecimal() or int(size) < 1:
            raise LayoutError(
                f"expected {name}=SIZE, got {name}={size!r}",
                asked=f"layout {line}",
                fix="write it like pp=4,vp=2,micro=16,schedule=1f1b",
            )
    stages, chunks = map(int, sizes)
    order = words.get(ORDER, "1f1b")
    if order not in SCHEDULES:
        fix = near_matches(order, list(SCHEDULES))
        raise LayoutError(f"unknown {ORDER}={order}", asked=f"layout {line}", fix=fix)
    if stages > 1:
        begins = tuple(name.strip() for name in words[CUT].split("/")) if CUT in words else ()
        return Pipeline(stages=stages, chunks=chunks, schedule=order, begins=begins)
    alone = [name for name in (CHUNKS, ORDER, CUT) if name in words and words[name] != "1"]
    if alone:
        wrong = f"{alone[0]} needs a pipeline"
        raise LayoutError(wrong, asked=f"layout {line}", fix="add pp=N")
    return None


def _axis(part: str, line: str) -> Axis:
    name, equals, size = part.partition("=")
    name, size = name.strip(), size.strip()
    if not equals or not size.isdecimal() or int(size) < 1:
        raise LayoutError(
            f"expected NAME=SIZE, got {part!r}",
            asked=f"layout {line}",
            fix="write it like dp=2,tp=4 or fsdp=8,tp=2,sp",
        )
    if name not in SCHEMES:
        fix = near_matches(name, [*SCHEMES, SEQUENCE, *WORDS])
        raise LayoutError(f"unknown axis {name!r}", asked=f"layout {line}", fix=fix)
    return Axis(name=name, size=int(size), scheme=SCHEMES[name])


def _check_product(
    axes: list[Axis], pipeline: Pipeline | None, line: str, chips: int | None
) -> None:
    counts = [pipeline.stages] if pipeline else []
    counts += [axis.size for axis in axes if not axis.scheme.time]
    product = math.prod(counts)
    if chips is None or product == chips:
        return
    sizes = " x ".join(map(str, counts))
    raise LayoutError(
        f"the axes multiply to {f'{sizes} = ' if len(counts) > 1 else ''}{product}, "
        f"there are {chips} chips",
        asked=f"layout {line or '(none)'} on {chips} chips",
        fix=f"choose sizes whose product is {chips}",
    )


def _check_turns(time: list[Axis], pipeline: Pipeline | None, line: str) -> None:
    if not time:
        fix = "add micro=2"
        raise LayoutError("turns needs microbatches", asked=f"layout {line}", fix=fix)
    if pipeline is not None:
        fix = "leave turns, or pp"
        wrong = "microbatches of stages follow the schedule, and take no turns"
        raise LayoutError(wrong, asked=f"layout {line}", fix=fix)


def _with_experts(axes: list[Axis], line: str) -> list[Axis]:
    """The tp axis as that of experts, too."""
    found = [axis for axis in axes if axis.name in HELD]
    if [axis.name for axis in found] != [HELD[1]]:
        wrong = "ep=tp needs a tp axis and no other for experts"
        raise LayoutError(wrong, asked=f"layout {line}", fix="write it like tp=8,ep=tp")
    summary = found[0].scheme.summary + "; whole experts"
    scheme = replace(found[0].scheme, experts=True, summary=summary)
    return [replace(axis, scheme=scheme) if axis is found[0] else axis for axis in axes]


def _with_tokens(axis: Axis) -> Axis:
    summary = axis.scheme.summary + "; tokens elsewhere"
    return replace(axis, scheme=replace(axis.scheme, tokens=True, summary=summary))
