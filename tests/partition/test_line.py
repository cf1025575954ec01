"""The layout line, and what an axis with more chips than there are parts says."""

import pytest

from emulate import run_plan, run_program
from numerics import assert_close
from programs import Builder, random_inputs
from supernode.errors import LayoutError, UnknownOp
from supernode.ir import Op, Program, TensorType, Value
from supernode.partition import parse_line, partition
from supernode.plan import Layout


def test_axes_keep_their_order_and_size_one_is_dropped() -> None:
    line = parse_line(" tp=2 , dp=4,fsdp=1, recompute=full", 8)
    assert [(axis.name, axis.size) for axis in line.axes] == [("tp", 2), ("dp", 4)]
    assert str(line) == "tp=2,dp=4,recompute=full"
    held = parse_line("ep=tp,dp=2,tp=4,sp", 8)
    assert str(held) == "dp=2,tp=4,sp,ep=tp"
    assert parse_line(str(held)) == held
    turns = parse_line("turns,micro=2,ep=4", 4)
    assert str(turns) == "ep=4,micro=2,turns"
    assert parse_line(str(turns)) == turns


@pytest.mark.parametrize(
    ("line", "chips", "text"),
    [
        ("dp", None, "expected NAME=SIZE, got 'dp'"),
        ("dp=0", None, "expected NAME=SIZE"),
        ("dp=-2", None, "expected NAME=SIZE"),
        ("dp=2=3", None, "expected NAME=SIZE"),
        ("pd=2", None, "unknown axis 'pd'"),
        ("dp=2,dp=2", None, "dp is named twice"),
        ("recompute=al", None, "unknown recompute=al"),
        ("recompute", None, "expected NAME=SIZE"),
        ("sp,dp=2", None, "sp needs a tp axis"),
        ("dp=2,turns", None, "turns needs microbatches"),
        ("pp=2,micro=4,turns", None, "microbatches of stages follow the schedule"),
        ("dp=2,ep=tp", None, "ep=tp needs a tp axis and no other for experts"),
        ("ep=2,tp=2,ep=tp", None, "ep=tp needs a tp axis and no other for experts"),
        ("dp=2,tp=2", 8, "the axes multiply to 2 x 2 = 4, there are 8 chips"),
        ("", 2, "the axes multiply to 1, there are 2 chips"),
    ],
)
def test_what_is_wrong_with_a_line(line: str, chips: int | None, text: str) -> None:
    with pytest.raises(LayoutError, match=text):
        parse_line(line, chips)


def mlp(batch: int = 8, hidden: int = 12) -> Program:
    b = Builder()
    x = b.input("x", "arg", (batch, 10))
    up = b.input("up", "param", (hidden, 10))
    down = b.input("down", "param", (10, hidden))
    h = b.op("aten.relu", b.op("aten.mm", x, b.op("aten.t", up)))
    b.result(b.op("aten.mm", h, b.op("aten.t", down)))
    return b.build()


def test_more_chips_than_samples() -> None:
    with pytest.raises(LayoutError) as caught:
        partition(mlp(batch=3), "dp=4")
    assert str(caught.value) == (
        "dp=4 leaves chips without a part of dim 0 of x (f32[3, 10]), size 3\n"
        "  asked: layout dp=4\n"
        "  op: aten.mm(f32[3, 10] [dp, -], f32[10, 12] [-, -])\n"
        "  where: model.py:1, in m, forward\n"
        "  fix: use sizes whose product is at most 3"
    )


def test_more_chips_than_units_of_a_dim() -> None:
    b = Builder()
    x, w = b.input("x", "arg", (8, 6)), b.input("w", "param", (12, 6))
    heads = b.op("aten.view", b.op("aten.mm", x, b.op("aten.t", w)), (8, 3, 4))
    back = b.op("aten.view", b.op("aten._softmax", heads, 2, False), (8, 12))
    b.result(b.op("aten.mm", back, b.input("v", "param", (12, 6))))
    with pytest.raises(LayoutError) as caught:
        partition(b.build(), "tp=4")
    assert str(caught.value) == (
        "tp=4 leaves chips without a part of dim 0 of w (f32[12, 6]), size 12, "
        "which splits in 3 equal units\n"
        "  asked: layout tp=4\n"
        "  op: aten.t(f32[12, 6] [tp, -])\n"
        "  where: model.py:1, in m, forward\n"
        "  fix: use sizes whose product is at most 3"
    )


def test_no_matrix_to_split() -> None:
    b = Builder()
    b.result(b.op("aten.mul.Tensor", b.input("x", "arg", (8,)), b.input("w", "param", (8,))))
    with pytest.raises(LayoutError, match="tp=2 splits nothing"):
        partition(b.build(), "tp=2")


def test_one_layer_without_a_loss_is_split_by_its_outputs() -> None:
    b = Builder()
    b.result(b.op("aten.mm", b.input("x", "arg", (8, 4)), b.input("w", "param", (4, 6))))
    plan = partition(b.build(), "tp=2")
    assert plan.inputs[1] == Layout(((), ("tp",)))


def test_no_tokens_to_split() -> None:
    b = Builder()
    b.result(b.op("aten.sum", b.input("x", "arg", (8,))))
    with pytest.raises(LayoutError, match="cp=2 does not divide the tokens"):
        partition(b.build(), "cp=2")


def test_axes_that_together_are_more_than_the_samples() -> None:
    with pytest.raises(LayoutError, match=r"dp\*fsdp=4 leaves chips without a part of dim 0 of x"):
        partition(mlp(batch=3), "dp=2,fsdp=2")


def test_more_chips_than_hidden_units() -> None:
    with pytest.raises(LayoutError, match=r"tp=16 leaves chips without a part of dim 0 of up"):
        partition(mlp(), "tp=16")


def test_more_chips_than_each_dim_of_a_weight() -> None:
    with pytest.raises(LayoutError) as caught:
        partition(mlp(batch=16), "fsdp=16")
    assert str(caught.value) == (
        "fsdp=16 is more than each dim of up ([12, 10])\n"
        "  asked: layout fsdp=16\n"
        "  op: aten.t(f32[12, 10] [-, -])\n"
        "  where: model.py:1, in m, forward\n"
        "  fix: choose a size that one of its dims reaches, and put the rest in dp"
    )


def test_an_op_without_a_row_names_op_module_and_file() -> None:
    b = Builder()
    x = b.input("x", "arg", (4, 4))
    y = Value(99, TensorType("float32", (4, 4)))
    b.ops.append(Op(name="aten.frobnicate", args=(x,), outputs=(y,), site=b.site))
    b.result(y)
    program = b.build()
    assert partition(program, "").local == program
    with pytest.raises(UnknownOp) as caught:
        partition(program, "dp=2")
    text = str(caught.value)
    assert "aten.frobnicate(f32[4, 4])" in text
    assert "where: model.py:1, in m, forward" in text
    assert "src/supernode/ops/" in text


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(LayoutError, match="dp=2 does not divide the batch: no argument"):
        partition(mlp(batch=1), "dp=2")


def test_what_no_op_reads_stays_whole() -> None:
    b = Builder()
    x = b.input("x", "arg", (8, 10))
    b.input("unread", "arg", (3, 10))
    b.input("idle", "param", (3, 5))
    w = b.input("w", "param", (10, 4))
    b.result(b.op("aten.mm", x, w))
    plan = partition(b.build(), "dp=2,tp=2")
    assert [plan.inputs[i] for i in (1, 2)] == [Layout.whole(2), Layout.whole(2)]


def test_an_argument_without_a_batch_stays_whole() -> None:
    b = Builder()
    x = b.input("x", "arg", (8, 10))
    features = b.input("features", "arg", (10, 10))
    w = b.input("w", "param", (5, 10))
    classes = b.input("classes", "arg", (5,))
    logits = b.op("aten.mm", b.op("aten.mm", x, features), b.op("aten.t", w))
    b.result(b.op("aten.mul.Tensor", logits, classes))
    plan = partition(b.build(), "dp=2")
    assert plan.inputs[0] == Layout((("dp",), ()))
    assert [plan.inputs[i] for i in (1, 3)] == [Layout.whole(2), Layout.whole(1)]


@pytest.mark.parametrize("line", ["fsdp=2", "tp=2", "dp=2,tp=2"])
def test_one_value_read_twice_by_an_op(line: str) -> None:
    b = Builder()
    x = b.input("x", "arg", (4, 8))
    w = b.input("w", "param", (8, 8))
    out = b.input("out", "param", (8, 12))
    b.result(b.op("aten.mm", b.op("aten.mm", x, b.op("aten.mm", w, w)), out))
    program = b.build()
    inputs = random_inputs(program)
    (got,), (want,) = run_plan(partition(program, line), inputs), run_program(program, inputs)
    assert_close(got, want, reduced=64)


@pytest.mark.parametrize("batch", [8, 6])
def test_a_batch_that_the_step_cuts_by_hand(batch: int) -> None:
    b = Builder()
    x = b.input("x", "arg", (batch, 10))
    parts = [b.op("aten.slice.Tensor", x, 0, start, start + 2) for start in range(0, batch, 2)]
    b.result(b.op("aten.add.Tensor", b.op("aten.sum", parts[0]), b.op("aten.mean", parts[1])))
    program = b.build()
    inputs = random_inputs(program)
    (got,), (want,) = run_plan(partition(program, "dp=4"), inputs), run_program(program, inputs)
    assert_close(got, want, reduced=64)


def test_no_microbatch_is_empty() -> None:
    with pytest.raises(LayoutError) as caught:
        partition(mlp(batch=7), "micro=8")
    assert str(caught.value) == (
        "micro=8 leaves microbatches without a part of dim 0 of x (f32[7, 10]), size 7\n"
        "  asked: layout micro=8\n"
        "  op: aten.mm(f32[7, 10] [micro, -], f32[10, 12] [-, -])\n"
        "  where: model.py:1, in m, forward\n"
        "  fix: use sizes whose product is at most 7"
    )
