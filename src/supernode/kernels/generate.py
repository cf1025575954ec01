"""`generate`: a Program becomes straight-line Python for one chip of a mesh."""

from supernode.ir import Program
from supernode.kernels.step import GeneratedStep
from supernode.kernels.surroundings import AtOnce, Collectives, Grid, Letters, OneChip, Places
from supernode.kernels.writer import Chip


def generate(
    program: Program,
    *,
    fabric: Collectives | None = None,
    letters: Letters | None = None,
    places: Places | None = None,
    mesh: Grid | None = None,
    rank: int = 0,
    device: str = "cpu",
) -> GeneratedStep:
    """The step that `program` describes, as a Python function without an interpreter in it.

    `program` is a captured step, or the local program of a plan; then `mesh`, `rank` and, on more
    than one chip, `fabric` say where it runs, `letters` carries what stages of a pipeline send each
    other, and `places` what lives elsewhere (by default it stays on the chip). New tensors are made
    on `device`.

    Raises:
        UnknownOp: the program has an op that nothing here computes.
    """
    chip = Chip(
        grid=mesh or OneChip(),
        rank=rank,
        fabric=fabric,
        letters=letters,
        places=places or AtOnce(),
        device=device,
    )
    step = GeneratedStep(program, chip)
    step.code(into=False, traced=False)
    return step
