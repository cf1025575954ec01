"""Meshes, layouts and the text of a Plan."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from programs import Builder
from supernode.errors import UnknownName, VerifyError
from supernode.partition import partition
from supernode.plan import (
    Layout,
    Mesh,
    Plan,
    cut_axis,
    cut_groups,
    plan_from_json,
    plan_to_json,
    time_axis,
)

MESH = Mesh((("dp", 2), ("fsdp", 3), ("tp", 2)))


def test_groups_cover_the_mesh() -> None:
    for axis, size in MESH.axes:
        groups = {MESH.group(rank, axis) for rank in range(MESH.size)}
        assert len(groups) == MESH.size // size
        assert sorted(itertools.chain(*groups)) == list(range(MESH.size))


@given(
    dims=st.permutations([("dp",), ("fsdp",), ("tp",), ()]),
    merge=st.booleans(),
)
def test_slices_cover_the_value_exactly(dims: list[tuple[str, ...]], merge: bool) -> None:
    if merge:
        dims = [dims[0] + dims[1], (), *dims[2:]]
    layout = Layout(tuple(dims))
    shape = (12, 12, 12, 12)
    seen = torch.zeros(shape, dtype=torch.int32)
    for rank in range(MESH.size):
        slices = layout.slices(shape, MESH, rank)
        assert seen[slices].shape == layout.local_shape(shape, MESH)
        seen[slices] += 1
    assert (seen == 1).all()


def test_an_axis_that_splits_nothing_holds_copies() -> None:
    layout = Layout((("tp",), ()))
    slices = [layout.slices((4, 4), MESH, rank) for rank in range(MESH.size)]
    assert slices[0] == slices[2] != slices[1]


def mlp_plan(line: str) -> Plan:
    b = Builder()
    x = b.input("x", "arg", (8, 16))
    up = b.input("up.weight", "param", (32, 16))
    down = b.input("down.weight", "param", (16, 32))
    h = b.op("aten.relu", b.op("aten.mm", x, b.op("aten.t", up)))
    y = b.op("aten.mm", h, b.op("aten.t", down))
    b.result(b.op("aten.mean", b.op("aten.mul.Tensor", y, y)))
    b.phase("backward")
    grad = b.op("aten.mm", b.op("aten.t", y), h)
    b.phase("optimizer")
    b.update(down, b.op("aten.sub.Tensor", down, b.op("aten.mul.Scalar", grad, 0.1)))
    return partition(b.build("mlp"), line)


def test_a_plan_reads_like_a_program(golden) -> None:
    golden("plan_mlp.txt", str(mlp_plan("fsdp=2,tp=2")) + "\n")


def test_explain(golden) -> None:
    plan = mlp_plan("fsdp=2,tp=2")
    names = ("x", "up.weight", "down.weight", "result")
    golden("plan_explain.txt", "\n".join(plan.explain(name) for name in names) + "\n")


def test_explain_of_an_unknown_name() -> None:
    with pytest.raises(UnknownName, match=r"did you mean up\.weight"):
        mlp_plan("dp=2").explain("up.wieght")


@pytest.mark.parametrize("line", ["", "dp=2", "fsdp=2,tp=2", "dp=3", "fsdp=3,tp=5"])
def test_json_round_trip(line: str) -> None:
    plan = mlp_plan(line)
    assert plan_from_json(plan_to_json(plan)) == plan


def test_a_damaged_plan_is_refused() -> None:
    text = plan_to_json(mlp_plan("dp=2"))
    with pytest.raises(VerifyError):
        plan_from_json(text.replace('["dp",2]', '["dp",4]'))
    with pytest.raises(VerifyError, match="supernode-plan-1"):
        plan_from_json("{}")


@pytest.mark.parametrize(
    "cuts", [(), ("dp",), ("fsdp", "dp"), ("dp:4",), ("dp", "fsdp:8"), ("dp:2", "tp:2", "fsdp:8")]
)
def test_ranges_are_what_cutting_one_after_another_leaves(cuts: tuple[str, ...]) -> None:
    """Each cut takes its part of each of its groups that the cuts further out have left."""
    size = 96
    for rank in range(MESH.size):
        at = MESH.coordinates(rank)
        kept = list(range(size))
        for each in cuts:
            length = size // cut_groups(each)
            groups = [[i for i in kept if i // length == g] for g in range(cut_groups(each))]
            parts = MESH.axis_size(cut_axis(each))
            kept = [i for group in groups if group for i in _part(group, parts, at[cut_axis(each)])]
        found = MESH.ranges(size, cuts, rank)
        assert [i for each in found for i in each] == kept


def test_a_cut_by_time_is_cut_further_by_chips_like_any_other() -> None:
    mesh, like = Mesh((("dp", 2),)), Mesh((("dp", 2), ("micro", 4)))
    for part in range(4):
        for rank in range(2):
            got = mesh.ranges(64, ("dp", f"{time_axis(4)}:8"), rank, part)
            assert got == like.ranges(64, ("dp", "micro:8"), rank * 4 + part)


def _part(items: list[int], parts: int, index: int) -> list[int]:
    size = len(items) // parts
    return items[index * size : (index + 1) * size]
