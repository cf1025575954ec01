"""From one program for all chips to one for each stage of a pipeline."""

from dataclasses import dataclass, replace

from supernode.errors import LayoutError
from supernode.ir import Program
from supernode.partition.chunks import EVERYWHERE, Chunks, backward_level, chunks_of
from supernode.partition.schedules import SCHEDULES
from supernode.partition.stages import AXIS as AXIS
from supernode.partition.stages import Staged, staged
from supernode.partition.tied import summed_by_chunk
from supernode.partition.unroll import Tag
from supernode.partition.weights import apart
from supernode.plan import Layout, Mesh, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """How many stages, how many chunks of the model each of them has, and the name of the order.

    `begins` are the modules with which chunks begin, but for the first; none where it is to be
    found out.
    """

    stages: int
    chunks: int = 1
    schedule: str = "1f1b"
    begins: tuple[str, ...] = ()

    def check_begins(self, line: str) -> None:
        """There is one for each chunk but the first.

        Raises:
            LayoutError: there are more or fewer.
        """
        cuts = self.stages * self.chunks - 1
        if self.begins and len(self.begins) != cuts:
            raise LayoutError(
                f"cut names {len(self.begins)} modules, {cuts + 1} chunks begin in {cuts} places",
                asked=f"layout {line}",
                fix="name the module that each chunk but the first begins with",
            )

    def check_parts(self, parts: int, line: str) -> None:
        """Interleaving goes through a chunk in groups of as many microbatches as stages.

        Raises:
            LayoutError: they do not come out even.
        """
        if self.chunks > 1 and self.schedule == "1f1b" and parts % self.stages:
            raise LayoutError(
                f"vp={self.chunks} takes microbatches in groups of {self.stages}, "
                f"there are {parts}",
                asked=f"layout {line}",
                fix=f"choose micro as a multiple of {self.stages}, or vp=1",
            )


def cut_in_stages(local: Program, tags: list[Tag], pipeline: Pipeline) -> tuple[Program, Staged]:
    """A program cut in stages, with the program that all classes of dims are read off: ids of
    values are those of the stages.

    Raises:
        LayoutError: the model can't be cut so.
    """
    order = SCHEDULES[pipeline.schedule]
    chunks = chunks_of(local, tags, pipeline.stages * pipeline.chunks, pipeline.begins)
    chunks = _in_parts(summed_by_chunk(chunks), pipeline)
    return chunks.local, staged(chunks, pipeline.stages, order)


def _in_parts(chunks: Chunks, pipeline: Pipeline) -> Chunks:
    """`chunks` with what the schedule does apart from the rest of backward told apart."""
    order = SCHEDULES[pipeline.schedule]
    if any(slot.kind == "weights" for slot in order(0, pipeline.stages, pipeline.chunks, 1)):
        return apart(chunks, backward_level(chunks.local, chunks.tags))
    return chunks


def pipelined(plan: Plan, tags: list[Tag], pipeline: Pipeline) -> Plan:
    """`plan`, which is for the chips of one stage, cut in stages.

    Raises:
        LayoutError: the model can't be cut so.
    """
    stages = pipeline.stages
    try:
        chunks = chunks_of(plan.local, tags, stages * pipeline.chunks, pipeline.begins)
    except LayoutError as error:
        raise error.complete(asked=f"layout {plan.layout}") from None
    chunks = summed_by_chunk(chunks)
    order = SCHEDULES[pipeline.schedule]
    # Where to cut is decided by the largest pieces, and alike for all.
    every = [_in_parts(each, pipeline) for each in (chunks, *map(chunks.alike, plan.variants))]
    cuts = [staged(each, stages, order) for each in every]
    first, *others = (cut.programs[stage] for stage in range(stages) for cut in cuts)
    return replace(
        plan,
        mesh=Mesh(((AXIS, stages), *plan.mesh.axes)),
        local=first,
        inputs=tuple(map(_at, plan.inputs, cuts[0].homes)),
        outputs=tuple(map(_at, plan.outputs, cuts[0].results)),
        starts=((AXIS, tuple(range(1, stages))), *plan.starts),
        variants=tuple(others),
    )


def _at(layout: Layout | None, stage: int) -> Layout | None:
    return layout if layout is None or stage == EVERYWHERE else layout.at(AXIS, stage)
