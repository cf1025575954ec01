"""Each op of the train steps of common models and optimizers has a row."""

import pytest

from optimizers import OPTIMIZERS, optimizer_step
from supernode.capture import capture
from supernode.ir import CALL, Program
from supernode.ops import table
from zoo import CNNS, ZOO, zoo_step


def without_a_row(program: Program) -> set[str]:
    names = {op.name for block in program.all_blocks() for op in block.ops}
    known = {*table(), CALL, "aten._local_scalar_dense"}
    return {name for name in names - known if not name.startswith("host.")}


def missing_in(name: str) -> set[str]:
    made = zoo_step(name)
    return without_a_row(capture(made.step, made.model, made.optimizer, made.args).program)


@pytest.mark.parametrize("name", CNNS)
def test_ops_of_our_vision_models(name: str):
    assert missing_in(name) == set()


@pytest.mark.slow  # transformers takes seconds to import
@pytest.mark.parametrize("name", [name for name in ZOO if name not in CNNS])
def test_ops_of_models_of_transformers(name: str):
    pytest.importorskip("transformers")
    assert missing_in(name) == set()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ops_of_optimizers(name: str):
    made = optimizer_step(name)
    program = capture(made.step, made.model, made.optimizers, made.args).program
    assert without_a_row(program) == set()
