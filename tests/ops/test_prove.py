"""The proof refutes rows that are wrong: each kind of claim is planted false once."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ops.calls import Sample, call
from ops.prove import Refuted, prove
from ops.samples import f, g, ids, samples
from supernode.ir import Op, Type
from supernode.ops import Formula, Fresh, Row, Split, table
from supernode.ops.formula import broadcast, from_template
from supernode.ops.row import linear_in, linear_in_all, passing, same, with_arg


def planted(name: str, **wrong: object) -> Row:
    """The row of an op with one of its columns replaced."""
    return replace(table()[name], **wrong)  # type: ignore[arg-type]


def said_free(name: str, factor: str) -> Callable[[Op], Formula]:
    def rule(op: Op) -> Formula:
        formula = table()[name].formula(op)
        assert factor in formula.whole
        return replace(formula, whole=formula.whole - {factor})

    return rule


def combined_by(name: str, kind: str) -> Callable[[Op], Formula]:
    def rule(op: Op) -> Formula:
        formula = table()[name].formula(op)
        return replace(formula, reduced=dict.fromkeys(formula.reduced, kind))

    return rule


SOFTMAX = call("aten._softmax", f(4, 8), -1, False)
RELU = call("aten.relu", f(4, 8))
MEAN = call("aten.mean.dim", f(4, 8), [1])
AMAX = call("aten.amax", f(4, 8), [1])
ADD_ONE = call("aten.add.Tensor", f(4, 8), 1.0)
ATTENTION = samples()["aten._scaled_dot_product_flash_attention_for_cpu"][1]
LOSS = samples()["aten.nll_loss_forward"][5]

WRONG = {
    "softmax over a split dim": (
        planted("aten._softmax", formula=said_free("aten._softmax", "i1")),
        SOFTMAX,
        r"split \{'i1'",
    ),
    "every second of a dim of which each chip has one of two": (
        planted("aten.slice.Tensor", formula=said_free("aten.slice.Tensor", "of")),
        call("aten.slice.Tensor", f(4, 8), 1, 1, 8, 2),
        r"inside of groups \{'of'",
    ),
    "causal attention over split tokens": (
        planted(ATTENTION.op.name, local=same),
        ATTENTION,
        r"split \{'s'",
    ),
    "a mean of the whole batch from parts": (
        planted("aten.nll_loss_forward", formula=said_free("aten.nll_loss_forward", "n0")),
        LOSS,
        r"split \{'n0'",
    ),
    "mean combined by sum": (
        planted("aten.mean.dim", formula=combined_by("aten.mean.dim", "sum")),
        MEAN,
        r"split \{'i1'",
    ),
    "max combined by sum": (
        planted("aten.amax", formula=combined_by("aten.amax", "sum")),
        AMAX,
        r"split \{'i1'",
    ),
    "an unknown kind": (
        planted("aten.amax", formula=combined_by("aten.amax", "median")),
        AMAX,
        r"no parts of kind 'median'",
    ),
    "relu is linear": (planted("aten.relu", linear=linear_in((0,))), RELU, r"linear in \(0,\)"),
    "x + 1 is linear": (
        planted("aten.add.Tensor", linear=linear_in((0,))),
        ADD_ONE,
        r"linear in \(0,\) for parts of a sum",
    ),
    "mm is linear in both together": (
        planted("aten.mm", linear=linear_in_all),
        call("aten.mm", f(4, 8), g(8, 4)),
        r"linear in \(0, 1\)",
    ),
    "amax lets sums through": (planted("aten.amax", passes=passing("sum")), AMAX, r"a sum pass"),
    "abs only moves": (planted("aten.abs", moves=True), call("aten.abs", f(4, 8)), r"a sum pass"),
    "a local form that keeps the whole shape": (
        planted("aten.view", local=same),
        call("aten.view", f(4, 8), [32]),
        r"split \{'f0'",
    ),
    "a local form of the wrong shape": (
        planted("aten.full", local=same),
        call("aten.full", [4, 8], 2.0),
        r"local output is f32\[4, 8\], expected f32\[2, 8\]",
    ),
    "a local form that takes parts to be equal": (
        planted("aten.full", local=lambda op, split, outputs: with_arg(op, 0, (2, 8))),
        call("aten.full", [5, 8], 2.0),
        r"local output is f32\[2, 8\], expected f32\[3, 8\]",
    ),
    "a table looked up as if it were whole": (
        planted("aten.embedding", local=same),
        call("aten.embedding", f(8, 6), ids(4, below=8)),
        r"split \{'v'",
    ),
    "a formula with an input too few": (
        planted(
            "aten.mm", formula=lambda op: from_template(op, "m k -> m n", inputs=op.inputs[:1])
        ),
        call("aten.mm", f(4, 8), g(8, 4)),
        r"formula",
    ),
    "dims that are not the shape's": (
        planted("aten.t", formula=lambda op: replace(broadcast(op), outputs=broadcast(op).inputs)),
        call("aten.t", f(4, 8)),
        r"formula|split",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_refuted(name: str):
    wrong, sample, message = WRONG[name]
    prove(table()[sample.op.name], sample)
    with pytest.raises(Refuted, match=message):
        prove(wrong, sample)


def test_a_wrong_expansion_is_refuted():
    def without_the_last(op: Op, fresh: Fresh) -> list[Op]:
        step = replace(op, name="aten.relu", args=op.args[1:2])
        return [replace(step, outputs=(fresh(op.outputs[0].type),)), step]

    sample = call("aten.addmm", g(8), f(8, 8), g(8, 8))
    with pytest.raises(Refuted, match=r"expand: \d+ of 64 elements differ"):
        prove(planted("aten.addmm", expand=without_the_last), sample)


def test_an_expansion_of_wrong_types_is_refuted():
    def in_double(op: Op, fresh: Fresh) -> list[Op]:
        steps = table()["aten._log_softmax"].expand
        assert steps is not None
        return [replace(s, outputs=(s.inputs[0],)) for s in steps(op, fresh) or []]

    sample = call("aten._log_softmax", f(4, 8), 1, False)
    with pytest.raises(Refuted, match=r"expand: aten\.amax in the expansion is f32\[4, 1\]"):
        prove(planted("aten._log_softmax", expand=in_double), sample)


def test_stretches_that_are_taken_from_elsewhere_are_refuted():
    def from_the_first(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
        length = op.outputs[0].tensor.shape[0]
        return replace(op, args=(op.args[0], 0, 0, length)) if "i0" in split else op

    sample = call("aten.slice.Tensor", f(12, 2), 0, 4, 12)
    with pytest.raises(Refuted, match="stretches of i0 split"):
        prove(planted("aten.slice.Tensor", local=from_the_first), sample)


def test_a_sample_whose_types_are_not_those_of_its_results_is_refuted():
    sample = call("aten.relu", f(4, 8))
    wrong = Sample(op=sample.op, inputs=sample.inputs, outputs=(torch.zeros(4, 8).double(),))
    with pytest.raises(AssertionError, match=r"output is f64\[4, 8\], expected f32\[4, 8\]"):
        prove(table()["aten.relu"], wrong)


def test_what_was_proven_is_told():
    proof = prove(table()["aten.mm"], call("aten.mm", f(4, 8), g(8, 4)))
    assert proof.splits == {"m", "k", "n"}
    assert proof.partial == {"k": "sum"}
    assert proof.linear == {(0,), (1,)}
