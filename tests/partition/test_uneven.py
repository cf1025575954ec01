"""Unequal pieces: moves between layouts, the programs of the chips, and what is planned of them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emulate import run_plan, run_program
from numerics import assert_close
from programs import Builder, random_inputs
from supernode.capture import capture
from supernode.ir import NOWHERE, Block, Port, Program, TensorType, Value
from supernode.partition import partition
from supernode.partition.emit import Emitter
from supernode.partition.line import SCHEMES, Axis, mesh_of
from supernode.partition.moves import move
from supernode.plan import (
    Layout,
    Plan,
    breaks,
    cut,
    fits,
    memory,
    run_memory,
    variant_ranks,
    verify_plan,
)

AXES = tuple(
    Axis(name=name, size=size, scheme=SCHEMES["dp"]) for name, size in (("a", 3), ("b", 2))
)
MESH = mesh_of(AXES)


def moving_plan(shape: tuple[int, ...], path: list[Layout], partial: bool) -> Plan:
    """A value is moved along the layouts of `path`; `partial`: it begins as parts of a sum."""
    value = Value(0, TensorType("float64", shape))
    ports = (Port(name="x", role="arg"),)
    results = (Port(name="y", role="result"),)

    def program(emitter: Emitter) -> Program:
        first = emitter.fresh(emitter.local_type(value.type, path[0]))
        local, now = first, path[0]
        for i, layout in enumerate(path[1:]):
            start = replace(now, partial=(("a", "sum"),)) if partial and not i else now
            local, now = move(emitter, local, value.type, start, layout, NOWHERE), layout
            emitter.local_type(value.type, layout)
        main = Block(name="main", inputs=(first,), ops=tuple(emitter.ops), outputs=(local,))
        return Program(name="moves", main=main, inputs=ports, outputs=results, updates=(None,))

    emitter = Emitter(AXES, {})
    local = program(emitter)
    found = {each for cuts, size in emitter.uneven for each in breaks(cuts, size, MESH)}
    starts = tuple((a, tuple(sorted(at for b, at in found if a == b))) for a, _ in MESH.axes)
    ranks = variant_ranks(MESH, starts)
    variants = [program(Emitter(AXES, MESH.coordinates(rank))) for rank in ranks]
    whole = Block(name="main", inputs=(value,), ops=(), outputs=(value,))
    return verify_plan(
        Plan(
            program=Program(
                name="moves", main=whole, inputs=ports, outputs=results, updates=(None,)
            ),
            mesh=MESH,
            layout="a=3,b=2",
            local=local,
            inputs=(path[0],),
            outputs=(path[-1],),
            placements=(),
            starts=starts,
            variants=tuple(variants[1:]),
        )
    )


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...], grouped: bool, free: str = "ab") -> Layout:
    """Each axis cuts one of the dims in some units, or none."""
    dims: list[tuple[str, ...]] = [() for _ in shape]
    for axis in draw(st.permutations(free)):
        dim = draw(st.integers(-1, len(shape) - 1))
        within = draw(st.sampled_from([1, 7, (4, 2, 1)])) if grouped and dim == 0 else 1
        inside = shape[dim] // (1 if within == 1 else 7)
        cuts = (*dims[dim], cut(axis, within, draw(st.sampled_from([0, inside, inside // 2]))))
        if dim >= 0 and fits(cuts, shape[dim], MESH):
            dims[dim] = cuts
    return Layout(tuple(dims))


SHAPE = (7 * 12, 8, 5)


@settings(max_examples=200)
@given(data=st.data(), partial=st.booleans())
def test_a_value_moved_along_layouts_is_the_same(data: st.DataObject, partial: bool) -> None:
    first = data.draw(layouts(SHAPE, False, "b" if partial else "ab"))
    path = [first, data.draw(layouts(SHAPE, True)), data.draw(layouts(SHAPE, False))]
    plan = moving_plan(SHAPE, path, partial)
    x = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (y,) = run_plan(plan, [x])
    # Chips along `a` hold alike parts, of which a sum adds up three.
    torch.testing.assert_close(y, 3 * x if partial else x)


def test_an_exchange_pads_both_dims() -> None:
    plan = moving_plan((7, 8), [Layout((("a/7",), ())), Layout(((), ("a/8",)))], False)
    names = [op.name for op in plan.local.main.ops]
    pads, drops = ["local.pad"] * 2, ["local.unpad"] * 2
    assert names == [*pads, "fabric.all_to_all", *drops]


def mlp(batch: int, width: int, hidden: int) -> Program:
    b = Builder()
    x = b.input("x", "arg", (batch, width))
    up, down = b.input("up", "param", (hidden, width)), b.input("down", "param", (width, hidden))
    h = b.op("aten.relu", b.op("aten.mm", x, b.op("aten.t", up)))
    y = b.op("aten.mm", h, b.op("aten.t", down))
    b.result(b.op("aten.mean", b.op("aten.mul.Tensor", y, y)))
    b.phase("backward")
    grad = b.op("aten.mm", b.op("aten.t", y), h)
    b.phase("optimizer")
    b.update(down, b.op("aten.sub.Tensor", down, b.op("aten.mul.Scalar", grad, 0.1)))
    return b.build("mlp")


def test_programs_of_chips_differ_in_sizes_only() -> None:
    plan = partition(mlp(7, 10, 6), "dp=3,tp=4")
    assert plan.starts == (("dp", (1,)), ("tp", (2,)))
    pieces = [plan.local_of(rank).main.inputs[0].tensor.shape for rank in range(12)]
    assert pieces == [(n, m) for n in (3, 2, 2) for m in (3, 3, 2, 2)]
    assert len({id(plan.local_of(rank)) for rank in range(plan.mesh.size)}) == 4


def test_the_memory_of_a_plan_is_that_of_a_chip_of_each_size() -> None:
    plan = partition(mlp(8, 10, 6), "dp=3")
    found = plan.memory()
    assert list(found.chips) == [0, 2]
    assert [plan.alike(rank) for rank in range(3)] == [0, 0, 2]
    assert found.peak_bytes == found.chips[0].peak_bytes > found.chips[2].peak_bytes
    assert found.chips[2] == run_memory(plan.local_of(2))
    assert plan.memory(in_place=True).peak_bytes == memory(plan.local).peak_bytes
    told = str(found).splitlines()
    assert told[0].split() == ["at", "the", "peak", "chip", "0", "chip", "2"]
    assert told[-2].split() == ["in", "all", "1.33", "kB", "1.29", "kB"]


def test_a_table_of_fewer_rows_than_chips_stays_whole() -> None:
    b = Builder()
    kinds = b.input("kinds", "arg", (8,), "int64")
    table, up = b.input("table", "param", (2, 10)), b.input("up", "param", (24, 10))
    h = b.op("aten.mm", b.op("aten.embedding", table, kinds), b.op("aten.t", up))
    b.result(b.op("aten.mean", b.op("aten.mul.Tensor", h, h)))
    b.phase("backward")
    b.result(b.op("aten.embedding_dense_backward", b.op("aten.mm", h, up), kinds, 2, -1, False))
    plan = partition(b.build(), "tp=4")
    assert plan.inputs[1:] == (Layout(((), ())), Layout((("tp",), ())))


def test_an_even_plan_has_one_program() -> None:
    plan = partition(mlp(8, 10, 6), "dp=4,tp=2")
    assert plan.variants == ()
    assert all(plan.local_of(rank) is plan.local for rank in range(8))
    assert "local.pad" not in str(plan)


def test_a_gradient_is_scattered_in_unequal_pieces_and_no_more_is_sent_than_they_need() -> None:
    plan = partition(mlp(8, 9, 11), "fsdp=4")
    assert plan.inputs[1:] == (Layout((("fsdp/11",), ())), Layout(((), ("fsdp/11",))))
    (scatter,) = [op for op in plan.local.main.ops if op.name == "fabric.reduce_scatter"]
    assert [value.tensor.shape for value in scatter.inputs] == [(9, 12)]


@pytest.mark.parametrize("line", ["dp=3", "dp=2", "zero1=3", "fsdp=3", "dp=2,tp=3"])
def test_a_mean_over_unequal_pieces_is_that_of_all(line: str) -> None:
    b = Builder()
    x, y = b.input("x", "arg", (7, 10)), b.input("y", "arg", (7, 10))
    w = b.input("w", "param", (10, 10))
    h = b.op("aten.mm", x, b.op("aten.t", w))
    b.result(b.op("aten.mse_loss", h, y), "loss")
    b.result(b.op("aten.mean.dim", h, (0,)), "mean")
    b.result(b.op("aten.var.correction", h, (0, 1), correction=1), "variance")
    b.result(b.op("aten.linalg_vector_norm", h, 2.0), "norm")
    b.result(b.op("aten.amax", h, (0,)), "top")
    program = b.build()
    inputs = random_inputs(program)
    got, want = run_plan(partition(program, line), inputs), run_program(program, inputs)
    for one, other in zip(got, want, strict=True):
        assert_close(one, other, reduced=64)


def test_a_dim_of_two_axes_one_of_which_divides_it() -> None:
    program = mlp(8, 12, 6)
    plan = partition(program, "dp=2,fsdp=3")
    assert plan.inputs[0] == Layout((("dp/8", "fsdp/8"), ()))
    pieces = [local.main.inputs[0].tensor.shape[0] for local in map(plan.local_of, range(6))]
    assert pieces == [2, 1, 1, 2, 1, 1]


def test_state_that_nothing_divides_is_cut_where_no_other_axis_cuts() -> None:
    """What two axes cut unevenly would be gathered and cut again around each op of the update."""
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256, bias=False),
        torch.nn.GELU(),
        torch.nn.Linear(256, 64, bias=False),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(x: torch.Tensor) -> torch.Tensor:
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    program = capture(step, model, optimizer, (torch.zeros(12, 64),)).program
    plan = partition(program, "zero1=6,tp=2")
    update = [op for op in plan.local.main.ops if op.site.phase == "optimizer"]
    gathers = [op for op in update if op.name == "fabric.all_gather"]
    assert {op.args[1] for op in gathers} == {"zero1"}
    gathered = sum(out.type.size_bytes for op in gathers for out in op.outputs)
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4 / 2
    assert weights <= gathered < 1.1 * weights
