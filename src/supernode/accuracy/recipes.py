"""What the recipes of a source say of a run, beyond the layout that its row states.

`data/recipes.csv` has those of Megatron-Bridge by release, model, machine and precision (and by
chips, where they differ), as its repository has them at the tag of that release: who sends rows to
experts, whether microbatches go in pairs, what is a captured graph, what is computed again. They
are facts of software; what they cost is told by mechanisms and machines.

**Source:** NVIDIA-NeMo/Megatron-Bridge, `scripts/performance` and `src/megatron/bridge/
perf_recipes`, at the tags in the last column, read 2026-11-27.
"""

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass

from supernode.accuracy.truth import DATA, Row

RECIPES = DATA / "recipes.csv"
_SOURCE = "Megatron-Bridge"
_PRECISIONS = {"fp8-cs": "fp8"}
_KERNELS = ("deepep", "hybridep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run did: `sent_by` (`alltoall`, `deepep`, `hybridep`) rows go to experts; `paired`
    microbatches hide that; `graph` names the modules launched as captured graphs, or `all`; and
    `recompute` those that backward computes again."""

    sent_by: str
    paired: bool
    graph: tuple[str, ...]
    recompute: tuple[str, ...]
    fused_experts: bool

    @property
    def counts(self) -> bool:
        """Whether the host reads how many rows there are: no graph holds the experts."""
        return not {"all", "layers"} & set(self.graph)

    @property
    def by_kernels(self) -> bool:
        """Whether kernels made for routed rows send them."""
        return self.sent_by in _KERNELS


def recipe_of(row: Row) -> Recipe | None:
    """The recipe of a row's run; None where none is known.

    Of a release that published a configuration without a recipe, it is that of the latest release
    before, or else of the next.
    """
    if not row.source.startswith(_SOURCE):
        return None
    stated = row.text("precision")
    key = (row.text("model"), row.machine, _PRECISIONS.get(stated, stated))
    known = _recipes().get(key)
    if not known:
        return None
    release, chips = row.noted("release"), row.text("chips")
    before = [name for name in sorted(known) if name <= release]
    found = known[before[-1] if before else min(known)]
    return found.get(chips) or next(iter(found.values()))


@functools.cache
def _recipes() -> Mapping[tuple[str, str, str], dict[str, dict[str, Recipe]]]:
    """By model, machine and precision; then by release; then by the number of chips."""
    found: dict[tuple[str, str, str], dict[str, dict[str, Recipe]]] = {}
    with RECIPES.open(encoding="utf-8", newline="") as file:
        for cells in csv.DictReader(file):
            key = (cells["model"], cells["machine"], cells["precision"])
            by_chips = found.setdefault(key, {}).setdefault(cells["release"], {})
            by_chips[cells["chips"]] = Recipe(
                sent_by=cells["dispatcher"],
                paired=cells["overlap"] == "1",
                graph=_names(cells["graph"]),
                recompute=_names(cells["recompute"]),
                fused_experts=cells["fused_mlp"] == "1",
            )
    return found


def _names(cell: str) -> tuple[str, ...]:
    return tuple(cell.split("+")) if cell else ()
