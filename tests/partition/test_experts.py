"""Experts over chips: the result, and the bytes against the textbook."""

import pytest
from torch import nn

from moe import WIDTH, Mix, add_up, moe_step, put_back
from partition.test_routing import ONE, TWO, captured, check, first_rows
from supernode.capture import capture
from supernode.errors import LayoutError
from supernode.ir import Op
from supernode.partition import partition
from supernode.plan import Plan
from supernode.report.traffic import totals

LINES = (
    "ep=2",
    "ep=4",
    "dp=2,ep=2",
    "ep=2,dp=2",
    "fsdp=2,ep=2",
    "zero1=2,ep=2",
    "ep=2,tp=2",
    "ep=2,tp=2,sp",
    "fsdp=2,ep=2,tp=2",
    "ep=2,cp=2",
    "micro=2,ep=2",
    "ep=2,recompute=selective",
    "ep=2,recompute=full",
)
HELD = (
    "tp=4,ep=tp",
    "tp=3,ep=tp",
    "dp=2,tp=2,ep=tp",
    "fsdp=2,tp=2,ep=tp",
    "tp=2,sp,ep=tp",
    "cp=2,tp=2,ep=tp",
    "tp=2,ep=tp,micro=2",
    "tp=2,ep=tp,recompute=full",
    "pp=2,tp=2,ep=tp,micro=2",
)
"""Whose chips have the same tokens and other experts."""
FLOAT, INT = 4, 8
"""Bytes of a float32 and an int64."""


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("mix", [put_back, add_up])
def test_a_step_over_many_chips_is_that_of_one(mix: Mix, line: str) -> None:
    check(moe_step(mix, layers=2), line)


@pytest.mark.parametrize("line", HELD)
@pytest.mark.parametrize("mix", [put_back, add_up])
@pytest.mark.parametrize("towards", [(), ONE])
def test_chips_with_the_same_tokens_may_have_other_experts(
    mix: Mix, towards: tuple[float, ...], line: str
) -> None:
    made = moe_step(mix, layers=2, towards=towards)
    plan = check(made, line)
    assert exchanges(plan) == []
    at = [port.name for port in plan.program.inputs].index("0.up")
    held = plan.local_of(plan.mesh.size - 1).main.inputs[at].tensor.shape
    parts = 2 if line.startswith("fsdp") else 1
    assert held[0] * held[1] * parts == (0 if "pp" in line else 4 // plan.mesh.axis_size("tp")) * 16


STAGED = (
    "pp=1/ep=2",
    "pp=ep=2/dp=2,micro=2",
    "pp=ep=2+tp=2/1,vp=2,micro=2",
    "pp=fsdp=2/tp=2+sp+ep=tp,micro=2,schedule=zb",
    "pp=1/ep=2,micro=2,recompute=full",
)


@pytest.mark.parametrize("line", STAGED)
@pytest.mark.parametrize("mix", [put_back, add_up])
@pytest.mark.parametrize("towards", [(), ONE])
def test_stages_of_their_own_may_split_experts(
    mix: Mix, towards: tuple[float, ...], line: str
) -> None:
    plan = check(moe_step(mix, layers=2, towards=towards), line)
    stages = [plan.local_of(stage.first) for stage in plan.mesh.stages]
    at = [[op for block in each.all_blocks() for op in block.ops] for each in stages]
    sorted_by = ["fabric.all_to_all_rows", "local.own_rows"]
    assert any(op.name in sorted_by for op in at["ep" in line.split("/")[1]])


def test_own_experts_add_up_tokens_not_rows() -> None:
    """What is sent is what tensor parallelism sends: one activation a layer and direction."""
    made = moe_step(layers=6)
    lines = [totals(partition(captured(made).program, line)) for line in ("tp=2", "tp=2,ep=tp")]
    sent = [sum(each.sent_bytes for each in found) for found in lines]
    assert sent[1] <= sent[0]


@pytest.mark.parametrize("line", [*LINES, "dp=2", "tp=2", "ep=4,tp=2", "tp=3,ep=tp", "tp=4,ep=tp"])
@pytest.mark.parametrize("towards", [(), (9.0, *[0.0] * 5)])
def test_experts_may_have_biases(towards: tuple[float, ...], line: str) -> None:
    """Rows look theirs up where they are multiplied, at the chips of their experts."""
    check(moe_step(layers=2, experts=6, batch=8, towards=towards, biased=True), line)


def test_rows_with_biases_stay_at_their_experts() -> None:
    """Beside the rows only the numbers of their experts travel, once a layer and direction."""
    plain, biased = (
        len(exchanges(partition(captured(moe_step(layers=2, biased=each)).program, "ep=2")))
        for each in (False, True)
    )
    assert biased == plain + 4


@pytest.mark.parametrize("line", ["ep=2", "dp=3,ep=2", "fsdp=3,ep=2", "ep=2,tp=3", "ep=2,cp=3"])
@pytest.mark.parametrize("towards", [(), ONE])
def test_chips_need_not_have_as_many_tokens(towards: tuple[float, ...], line: str) -> None:
    assert check(moe_step(layers=2, batch=7, towards=towards), line).variants


@pytest.mark.parametrize(
    "line", ["ep=4", "ep=3", "dp=2,ep=4", "fsdp=2,ep=4", "ep=4,tp=2", "ep=4,micro=2"]
)
@pytest.mark.parametrize("mix", [put_back, add_up])
def test_chips_need_not_have_as_many_experts(mix: Mix, line: str) -> None:
    """Of six experts, four chips have 2, 2, 1 and 1; three have 3, 2 and 2 of seven."""
    experts, batch = (7, 6) if line == "ep=3" else (6, 16)
    check(moe_step(mix, layers=2, experts=experts, batch=batch), line)


@pytest.mark.parametrize("towards", [(9.0, *[0.0] * 5), (*[-9.0] * 5, 9.0)])
def test_all_tokens_may_go_to_the_first_or_the_last_of_unequal_chips(
    towards: tuple[float, ...],
) -> None:
    check(moe_step(layers=2, experts=6, towards=towards), "ep=4")


def test_each_chip_holds_its_experts_alone() -> None:
    plan = partition(captured(moe_step(experts=6)).program, "ep=4")
    at = [port.name for port in plan.program.inputs].index("0.up")
    held = [plan.local_of(rank).main.inputs[at].tensor.shape[0] for rank in range(4)]
    assert held == [2, 2, 1, 1]


@pytest.mark.parametrize("line", ["ep=4", "dp=2,ep=2"])
@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("towards", [ONE, TWO])
def test_no_token_is_dropped_where_all_go_to_few_experts(
    towards: tuple[float, ...], top: int, line: str
) -> None:
    check(moe_step(layers=2, top=top, towards=towards), line)


def test_tensor_parallel_splits_the_matrices_of_experts() -> None:
    made = partition(captured(moe_step(layers=2)).program, "tp=2")
    ports = zip(made.program.inputs, made.program.main.inputs, made.inputs, strict=True)
    split = [
        layout.split_axes
        for port, value, layout in ports
        if layout and port.role == "param" and len(value.tensor.shape) == 3
    ]
    assert split == [("tp",)] * len(split) != []


def exchanges(plan: Plan) -> list[Op]:
    """The exchanges of rows in one step."""
    counts = plan.local.counts()
    return [
        op
        for block in plan.local.all_blocks()
        for op in block.ops * counts.get(block.name, 1)
        if op.name == "fabric.all_to_all_rows"
    ]


@pytest.mark.parametrize("experts", [4, 6])
@pytest.mark.parametrize("layers", [2, 6])
@pytest.mark.parametrize("line", ["ep=4", "dp=2,ep=2", "fsdp=2,ep=2", "ep=4,recompute=selective"])
def test_each_token_travels_twice_each_way(line: str, layers: int, experts: int) -> None:
    """There and back, forward and backward; nobody asks for the gradient of the first input."""
    made = moe_step(layers=layers, top=2, experts=experts, batch=8)
    plan = partition(captured(made).program, line)
    assert len(exchanges(plan)) == 4 * layers - 1
    chips, size = plan.mesh.size, plan.mesh.axis_size("ep")
    rows = made.args[0].shape[:2].numel() * 2 // chips
    textbook = (4 * layers - 1) * rows * WIDTH * FLOAT * (size - 1) / size
    sent = [each.sent_bytes for each in totals(plan) if each.collective == "all_to_all"]
    assert textbook <= sum(sent) <= 1.05 * textbook


@pytest.mark.parametrize("layers", [2, 6])
@pytest.mark.parametrize("line", ["ep=2,tp=2", "dp=2,tp=2", "ep=2,tp=2,sp"])
@pytest.mark.parametrize("mix", [put_back, add_up])
def test_parts_of_an_expert_add_up_tokens_not_rows(mix: Mix, line: str, layers: int) -> None:
    """Forward and backward of a layer, and the gradients of its scores."""
    made = moe_step(mix, layers=layers, top=2)
    plan = partition(captured(made).program, line)
    tokens = made.args[0].shape[:2].numel() // 2
    activation, scores = tokens * WIDTH * FLOAT, tokens * 2 * FLOAT
    textbook = (2 * layers - 1) * activation + layers * scores
    if "sp" in line:
        # A reduce-scatter and an all-gather are an all-reduce; places and weights of rows are more.
        textbook += activation / 2 + layers * (tokens * 2 * (INT + FLOAT)) / 2
        textbook += sum(p.nbytes for n, p in made.model.named_parameters() if "gate" in n)
    # An all-reduce over two chips sends each chip's bytes once.
    got = sum(each.sent_bytes for each in totals(plan) if each.axis == "tp")
    assert got <= textbook, f"{got} bytes, textbook {textbook}"


def test_a_chip_holds_its_part_of_its_experts() -> None:
    plan = partition(captured(moe_step()).program, "dp=2,ep=2,tp=2")
    names = [port.name for port in plan.program.inputs]
    for name in ("0.up", "0.down", "optimizer.momentum_buffer[0.up]"):
        at = names.index(name)
        whole, local = (block.inputs[at].tensor for block in (plan.program.main, plan.local.main))
        assert whole.numel == 4 * local.numel


def test_gradients_of_experts_are_complete_where_their_weights_are() -> None:
    made = moe_step(layers=2)
    plan = partition(captured(made).program, "dp=2,ep=2")
    experts = sum(p.nbytes for name, p in made.model.named_parameters() if "gate" not in name)
    gates = sum(p.nbytes for name, p in made.model.named_parameters() if "gate" in name)
    reduced = {each.axis: each for each in totals(plan) if each.collective == "all_reduce"}
    # An all-reduce over two chips sends each chip's bytes once.
    assert reduced["dp"].sent_bytes == experts / 2 + gates + FLOAT
    assert reduced["ep"].sent_bytes == gates + FLOAT


def test_experts_live_where_they_are_used() -> None:
    plan = partition(captured(moe_step()).program, "fsdp=2,ep=2")
    homes = dict(zip((port.name for port in plan.program.inputs), plan.inputs, strict=True))
    assert str(homes["0.up"]) == "[ep, fsdp, -]"
    assert str(homes["optimizer.momentum_buffer[0.up]"]) == "[ep, fsdp, -]"
    assert str(homes["0.gate.weight"]) == "[fsdp, -]"
    assert "ep splits dim 0 (expert parallel" in plan.explain("0.up")


def test_rows_stay_with_their_experts_from_the_first_product_to_the_last() -> None:
    plan = partition(captured(moe_step()).program, "ep=2")
    ops = [op for op in plan.local.main.ops if op.site.phase == "forward"]
    names = [op.name for op in ops]
    first, last = (i for i, name in enumerate(names) if name == "fabric.all_to_all_rows")
    assert names[first:last].count("aten._grouped_mm") == 2
    assert "aten.relu" in names[first:last]
    assert "aten._grouped_mm" not in names[:first] + names[last:]


# ---- refusals ----


def test_fewer_experts_than_chips_are_refused() -> None:
    with pytest.raises(LayoutError, match=r"ep=4 leaves chips without a part of dim 0 of 0\.up"):
        partition(captured(moe_step(experts=3)).program, "ep=4")


def test_a_model_without_experts_is_refused() -> None:
    made = moe_step()
    model = nn.Linear(WIDTH, WIDTH)

    def step(x, y):
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss.detach()

    program = capture(step, model, None, made.args).program
    with pytest.raises(LayoutError) as caught:
        partition(program, "ep=2")
    assert str(caught.value).startswith(
        "ep=2 finds no experts that tokens could be sent to: no token is sorted by expert\n"
        "  asked: layout ep=2\n"
    )


def test_tokens_whose_order_matters_are_not_sent() -> None:
    with pytest.raises(LayoutError) as caught:
        partition(captured(moe_step(first_rows)).program, "ep=2")
    assert "ep=2 finds no experts that tokens could be sent to: aten.slice" in caught.value.wrong
