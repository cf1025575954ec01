"""Every row of the op table is true of every sample, and every row has one."""

import pytest
from torch import Tensor

from ops.calls import Sample
from ops.prove import MESHES, Proof, claimed, expansion, prove
from ops.samples import samples
from supernode.errors import UnknownOp
from supernode.ir import NOWHERE, Op, Site, TensorType, Value
from supernode.ops import cost, is_view, row, table
from supernode.ops.row import register


def test_each_row_has_a_sample_and_each_sample_a_row():
    assert sorted(samples()) == sorted(table())


@pytest.mark.parametrize("name", sorted(table()))
def test_row_is_true(name: str):
    rule = table()[name]
    claimed: set[tuple[int, ...]] = set()
    shown: set[tuple[int, ...]] = set()
    for sample in samples()[name]:
        proof = prove(rule, sample)
        _assert_all_splits_tried(sample, proof)
        claimed |= set(rule.linear(sample.op))
        shown |= proof.linear
        for step in expansion(rule, sample) if rule.expand else ():
            prove(table()[step.op.name], step)
    assert shown == claimed


def _assert_all_splits_tried(sample: Sample, proof: Proof) -> None:
    """No claim may pass because the sample was too small to try it."""
    formula = table()[sample.op.name].formula(sample.op)
    can_be_tried = {factor for factor in claimed(formula) if formula.sizes[factor] > 1}
    repeated = len({value.id for value in sample.op.inputs}) < len(sample.op.inputs)
    assert repeated or proof.splits - set(formula.stretches) == can_be_tried


@pytest.mark.parametrize(
    "name", [name for name in table() if table()[name].formula(samples()[name][0].op).stretches]
)
def test_stretches_are_split_together_in_equal_parts_and_unequal(name: str):
    """So that it is not for want of samples that none is refuted."""
    known = [table()[name].formula(each.op).stretches for each in samples()[name]]
    factors = {factor for stretches in known for factor in stretches}
    two, three, _ = MESHES
    for mesh in (two, three):
        proofs = [prove(table()[name], each, [mesh]) for each in samples()[name]]
        assert any(proof.splits & factors for proof in proofs)


def test_each_kind_of_claim_is_met_by_some_sample():
    kinds: set[str] = set()
    for name, rule in table().items():
        for sample in samples()[name]:
            proof = prove(rule, sample)
            kinds |= set(proof.partial.values()) | {f"passes {kind}" for kind in proof.passes}
            kinds |= {"linear"} if proof.linear else set()
            kinds |= {"expands"} if proof.expands else set()
    reductions = {"sum", "mean", "max", "min", "norm2"}
    assert kinds == reductions | {f"passes {kind}" for kind in reductions} | {"linear", "expands"}


def test_a_second_row_for_one_op_is_refused():
    with pytest.raises(AssertionError, match=r"two rows for aten\.mm"):
        register([table()["aten.mm"]])


def test_views_are_known_as_views():
    assert is_view(samples()["aten.t"][0].op)
    assert not is_view(samples()["aten.clone"][0].op)


@pytest.mark.parametrize("name", sorted(table()))
def test_only_views_share_memory_and_only_that_of_their_first_input(name: str):
    for sample in samples()[name]:
        for result in sample.outputs:
            shared = [i for i, given in enumerate(sample.inputs) if _share(result, given)]
            assert shared in ([], [0] if table()[name].view else []), str(sample)


def _share(one: object, other: object) -> bool:
    """Whether writing one may change the other."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return False
    return (
        one.numel() > 0 and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    )


def _unknown(name: str, site: Site = NOWHERE) -> Op:
    values = Value(0, TensorType("float32", (8, 4))), Value(1, TensorType("int64", (8,)))
    return Op(name=name, args=values, outputs=(Value(2, values[0].type),), site=site)


def test_an_op_without_a_row_says_where_to_add_one():
    op = _unknown("aten.index_fill.int_Scalar", Site("model.experts.0", "backward", "moe.py:12"))
    with pytest.raises(UnknownOp) as caught:
        row(op)
    assert str(caught.value) == (
        "no row in the op table for aten.index_fill.int_Scalar\n"
        "  op: aten.index_fill.int_Scalar(f32[8, 4], i64[8])\n"
        "  where: moe.py:12, in model.experts.0, backward\n"
        "  fix: add a row to src/supernode/ops/index.py (docs/howto/add-an-op.md), "
        "or run on one chip, which needs none"
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("aten._fused_rms_norm", "normalisation.py"),
        ("aten.batch_norm_stats", "batch_norm.py"),
        ("aten.polygamma", "pointwise.py"),
        ("aten.addbmm", "matmul.py"),
        ("aten.conv_tbc", "convolution.py"),
        ("aten.max_pool2d", "pooling.py"),
        ("aten._upsample_bicubic2d_aa", "spatial.py"),
        ("aten.multi_margin_loss", "loss.py"),
        ("aten._embedding_bag_per_sample_weights_backward", "lookup.py"),
        ("aten.view_as_real_copy", "view.py"),
        ("aten._scaled_dot_product_flash_attention", "attention.py"),
    ],
)
def test_the_named_file_is_the_family_of_the_op(name: str, file: str):
    with pytest.raises(UnknownOp, match=f"src/supernode/ops/{file}"):
        cost(_unknown(name))
