"""What is known of the software of a published run, from its source's recipes."""

import csv

import pytest

from accuracy.rows import row
from supernode.accuracy import load_truth
from supernode.accuracy.case import Case, Step
from supernode.accuracy.cases import cases
from supernode.accuracy.recipes import RECIPES, recipe_of
from supernode.accuracy.training import training_case

BLACKWELL_GRAPHS = (".attention", ".mlp_norm", ".mlp.router")


def step_of(case: Case) -> Step:
    ((_, spec),) = case.parts
    assert isinstance(spec, Step)
    return spec


def test_each_line_is_one_recipe_of_one_release():
    with RECIPES.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    keys = [
        tuple(line[name] for name in ("release", "model", "machine", "precision", "chips"))
        for line in lines
    ]
    assert len(keys) == len(set(keys))
    assert {line["dispatcher"] for line in lines} == {"alltoall", "deepep", "hybridep"}
    scopes = {name for line in lines for name in line["graph"].split("+") if name}
    assert scopes == {"all", "layers", "attn", "moe_router", "moe_preprocess"}
    assert all(line["tag"].startswith("v0.") for line in lines)


def test_all_mixtures_of_the_source_that_are_predicted_have_a_recipe():
    rows = {each.id: each for each in load_truth() if each.table == "training"}
    made, _ = cases(rows.values())
    mixtures = [case for case in made if case.regime == "training-moe"]
    bridge = [case.id for case in mixtures if case.source.startswith("Megatron-Bridge")]
    assert len(bridge) > 40
    assert [id_ for id_ in bridge if recipe_of(rows[id_]) is None] == []


@pytest.mark.parametrize(
    ("id_", "copies", "paired", "graphs", "casts"),
    [
        # Whole steps are graphs, experts are one fused kernel, microbatches go in pairs.
        ("mb-008", 8, True, ("",), 0),
        # Standard all-to-all of each copy; the host launches all, each expert by itself.
        ("mb-222", 0, False, (), 0),
        # The same machine and model, two releases later: by kernels made for it.
        ("mb-141", 4, False, (), 0),
        ("mb-221", 0, False, BLACKWELL_GRAPHS, 0),
        ("mb-050", 8, False, (), 3),
        # A layer is a graph where tokens that are too many are dropped.
        ("mb-271", 0, False, ("blocks.",), 3),
    ],
)
def test_a_run_as_its_recipe_has_it(
    id_: str, copies: int, paired: bool, graphs: tuple[str, ...], casts: int
):
    step = step_of(training_case(row(id_)))
    assert (step.terms.copies, step.terms.paired) == (copies, paired)
    assert (step.graphs, step.casts) == (graphs, casts)
    assert step.terms.permuted == step.shape.topk


def test_a_source_without_recipes_has_none():
    assert recipe_of(row("kor-04")) is None
    assert step_of(training_case(row("kor-04"))).graphs is None


def test_norms_and_activations_that_a_recipe_computes_again_are_in_the_layout():
    assert step_of(training_case(row("mb-222"))).layout == "ep=64,micro=5,recompute=selective"
    assert step_of(training_case(row("mb-221"))).layout == "ep=64,micro=5"


def test_biases_of_experts_and_rows_filled_up_are_copies_beside():
    plain, filled, biased = (
        step_of(training_case(row(id_))) for id_ in ("mb-008", "mb-227", "mb-222")
    )
    # In a graph of whole steps what backward needs of experts is copied to pages: 5 bytes of ffn.
    kept = 2 * (1 + 5 * plain.shape.ffn / plain.shape.hidden)
    assert plain.beside == (kept, kept)
    assert filled.beside == (8.0, 8.0)
    assert biased.beside == (28.0, 40.0)
