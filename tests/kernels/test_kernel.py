"""A Triton kernel with a formula is an op like any other: captured, split, costed, run, refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import supernode as sn
from emulate import run_plan
from numerics import assert_close
from supernode.capture import capture
from supernode.errors import InputError, UnknownOp
from supernode.ir import from_json, to_json
from supernode.kernels import generate
from supernode.ops import Cost, cost, row
from supernode.partition import partition

pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")

import triton_cpu
from kernels import triton_kernels as written

SOURCES = Path(__file__).resolve().parents[2] / "src"
REDUCED = 4096
STEPS = 3


@pytest.fixture(autouse=True)
def cpu_backend(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "triton-cache"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    triton_cpu.activate()


def job(*, plain: bool) -> tuple[Any, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = written.Model(plain=plain)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-4)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step, model, optimizer


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, 16, generator=drawn), torch.randn(4, 6, 5, generator=drawn)


def used(program: Any) -> list[str]:
    ops = [op for block in program.all_blocks() for op in block.ops]
    return [op.name for op in ops if op.name.startswith("supernode.")]


def test_a_kernel_is_one_op_forward_and_backward():
    captured = capture(*job(plain=False), batch())
    assert used(captured.program) == [
        "supernode.scaled_softmax",
        "supernode.linear_gelu",
        "supernode.gelu_backward",
        "supernode.gelu_backward",
    ]
    sites = {op.site.phase for op in captured.program.main.ops if "gelu_backward" in op.name}
    assert sites == {"backward"}
    assert from_json(to_json(captured.program)) == captured.program


@pytest.mark.parametrize("layout", ["", "dp=2", "tp=2", "fsdp=2", "dp=2,tp=2", "dp=2,micro=2"])
def test_a_split_step_gives_what_the_plain_model_gives(layout: str):
    captured = capture(*job(plain=False), batch())
    values = captured.inputs() | captured.bind(*batch()) | captured.host_values()
    inputs = [values[port.name] for port in captured.program.inputs]
    plan = partition(captured.program, layout)
    names = [port.name for port in captured.program.outputs]
    found = dict(zip(names, run_plan(plan, inputs), strict=True))
    step, model, _ = job(plain=True)
    assert_close(found["result"], step(*batch()), reduced=REDUCED)
    for name, weight in model.named_parameters():
        assert_close(found[name], weight, reduced=REDUCED)


def test_what_a_layout_makes_of_a_kernel():
    captured = capture(*job(plain=False), batch())
    local = partition(captured.program, "dp=2,tp=2").local
    shapes = {
        op.name: [value.tensor.shape for value in (*op.inputs, *op.outputs)]
        for block in local.all_blocks()
        for op in block.ops
        if op.name.startswith("supernode.")
    }
    assert shapes["supernode.linear_gelu"] == [(12, 16), (16, 12), (12,), (12, 12), (12, 12)]
    assert shapes["supernode.scaled_softmax"] == [(2, 6, 6), (2, 6, 6)]


CHIPS = [
    *(pytest.param("cpu:2", layout, marks=pytest.mark.slow) for layout in ("dp=2", "tp=2")),
    pytest.param("cuda:1", "", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("chips", "layout"), CHIPS)
def test_chips_train_what_the_plain_model_trains(chips: str, layout: str):
    step, model, optimizer = job(plain=False)
    plain_step, plain, _ = job(plain=True)
    with sn.connect(chips) as node:
        compiled = node.compile(step, model, optimizer, layout=layout)
        for number in range(STEPS):
            assert_close(
                compiled(*batch(number)), plain_step(*batch(number)), reduced=STEPS * REDUCED
            )
        compiled.pull()
    for name, weight in plain.named_parameters():
        assert_close(model.get_parameter(name), weight, reduced=STEPS * REDUCED)


def test_inputs_are_contiguous_unless_strides_are_read():
    x = torch.randn(4, 6, 8).transpose(1, 2)
    assert_close(written.scaled_softmax(x, 2.0), (2 * x).softmax(-1), reduced=8)
    w, bias = torch.randn(10, 6).t(), torch.randn(10)
    x = torch.randn(8, 6)
    out, _ = written.linear_gelu(x, w, bias)
    assert_close(out, nn.functional.gelu(x @ w + bias), reduced=REDUCED)


def test_generated_code_calls_the_function_itself():
    captured = capture(lambda x: written.row_sum(x), None, (), (torch.ones(4, 40),))
    source = generate(captured.program).source
    assert "kernel_row_sum(" in source


def one_op(step: Any, *args: Any) -> Any:
    program = capture(step, None, (), args).program
    (op,) = [op for op in program.main.ops if op.name.startswith("supernode.")]
    return op


def test_the_cost_is_counted_in_the_kernel():
    x, w, b = torch.ones(64, 48), torch.ones(48, 32), torch.ones(32)
    found = cost(one_op(lambda x, w, b: written.linear_gelu(x, w, b)[0], x, w, b))
    per_element = 1 + 1 + 1 + 8 + 1 + 1  # bias, half, root, erf, one more, product
    assert found.flops == 2 * 64 * 48 * 32 + per_element * 64 * 32
    assert (found.bytes_read, found.bytes_written) == (
        4 * (64 * 48 + 48 * 32 + 32),
        2 * 4 * 64 * 32,
    )
    assert (found.unit, found.dtype) == ("matmul", "float32")


def test_the_cost_of_a_softmax():
    found = cost(one_op(lambda x: written.scaled_softmax(x, 0.5), torch.ones(2, 4, 32)))
    # scale, maximum, difference, exponential, sum, quotient
    assert found.flops == (1 + 1 + 1 + 8 + 1 + 1) * 2 * 4 * 32
    assert (found.bytes_read, found.bytes_written, found.unit) == (1024, 1024, "vector")


def test_loops_and_branches_are_followed():
    found = cost(one_op(lambda x: written.triangle(x), torch.ones(8, 16)))
    # Row r of 8 adds up r + 1 pieces of 16; a row behind the fourth doubles them first.
    assert found.flops == 16 * (sum(r + 1 for r in range(8)) + 4) + 8 * 16
    assert found.bytes_read == 4 * 8 * 16


def test_a_tuned_kernel_is_counted_as_its_first_choice():
    found = cost(one_op(lambda x: written.doubled(x), torch.ones(1000)))
    assert (found.flops, found.bytes_read) == (1024, 4000)


def test_a_given_cost_is_taken():
    op = one_op(lambda x, w: written.priced(x, w), torch.ones(4, 6), torch.ones(6, 8))
    assert cost(op) == Cost(384, 704 - 128, 128, "matmul", "float32")


def test_a_simulation_takes_the_cost():
    captured = capture(*job(plain=False), batch())
    result = sn.simulate(partition(captured.program, "dp=2"), sn.load_machine("hgx-h100"))
    assert result.step_s > 0


WRONG = {
    "a kernel itself": (
        lambda: sn.kernel("n -> n")(written._gelu_backward),
        "goes on the one that launches the kernel, not on the kernel itself",
    ),
    "no formula": (lambda: _defined("m k m n"), "'m k m n' is no formula of a kernel"),
    "an open bracket": (lambda: _defined("(m k -> m"), "is no formula of a kernel"),
    "a new name": (lambda: _defined("m, m -> m q"), "q of the output is in no input"),
    "a name twice": (lambda: _defined("m m, m -> m"), "a name may occur once in each tensor"),
    "too few arguments": (lambda: _defined("a, b, c -> a"), "has 3 inputs, two takes (x, y)"),
    "an argument of no type": (lambda: _defined("a -> a"), "takes y, which the formula has not"),
    "an unknown factor": (lambda: _defined("a, b -> a", whole="c"), "has no c"),
    "a name taken": (
        lambda: sn.kernel("a -> a")(_row_sum_again),
        "two kernels are named row_sum",
    ),
    "other shapes": (
        lambda: written.linear_gelu(torch.ones(4, 5), torch.ones(6, 8), torch.ones(8)),
        "linear_gelu([4, 5], [6, 8], [8]) does not fit its formula 'm k, k n, n -> m n, m n': "
        "dim 0 of weight is 6, and k is 5",
    ),
    "another rank": (
        lambda: written.row_sum(torch.ones(4)),
        "x has 1 dims",
    ),
    "another result": (
        lambda: written.wrong_shape(torch.ones(4, 8)),
        "wrong_shape returns float32[8], its formula 'r c -> r' says float32[4]",
    ),
    "another dtype": (
        lambda: written.wrong_dtype(torch.ones(4, 8)),
        "wrong_dtype returns float32[4, 8], its formula 'r c -> r c' says float64[4, 8]",
    ),
    "an input again": (
        lambda: sn.kernel("n -> n")(_nothing)(torch.ones(4)),
        "_nothing returns one of its inputs, or a view of it",
    ),
    "a formula that is not true": (
        lambda: written.wrong_formula.check(torch.randn(2, 4, 8)),
        "parts of t do not give the whole of output 0\n  fix: whole='t', or mend the formula",
    ),
}  # fmt: skip


def row_sum(x):
    return x


def _nothing(x):
    return x.view_as(x)


_row_sum_again = row_sum


def _defined(formula: str, **options: Any) -> Any:
    def two(x, y):
        return x

    return sn.kernel(formula, **options)(two)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name: str):
    act, text = WRONG[name]
    with pytest.raises(InputError) as caught:
        act()
    assert text in str(caught.value)


def test_a_kernel_without_a_backward_is_refused_where_it_is_needed():
    weight = nn.Parameter(torch.ones(4, 8))
    model = nn.ParameterList([weight])

    def step():
        written.row_sum(weight).sum().backward()
        weight.grad = None

    with pytest.raises(InputError) as caught:
        capture(step, model, (), ())
    assert "the kernel row_sum has no backward" in str(caught.value)
    assert f"{__file__}:" in caught.value.where
    assert "row_sum.register_autograd(backward" in caught.value.fix
    with pytest.raises(InputError, match="has no backward"):
        step()
    with torch.no_grad():
        assert written.row_sum(weight).tolist() == [8.0] * 4


def test_a_cost_that_depends_on_data_is_asked_for():
    ops = {
        "how often a loop runs depends on data": one_op(
            lambda x: written.while_large(x), torch.ones(4)
        ),
        "it launches no Triton kernel": one_op(lambda x: written.no_launch(x), torch.ones(4)),
        "it calls aten.mm.default beside its kernels": one_op(
            lambda x: written.with_mm(x), torch.ones(4, 4)
        ),
    }
    for why, op in ops.items():
        with pytest.raises(InputError) as caught:
            cost(op)
        assert f"can't be counted: {why}" in str(caught.value)
        assert "flops= and bytes=" in caught.value.fix


def test_a_program_of_a_kernel_that_is_not_imported():
    op = one_op(lambda x: written.row_sum(x), torch.ones(4, 8))
    with pytest.raises(UnknownOp, match="import the module in which this kernel is written"):
        row(replace(op, name="supernode.elsewhere"))


SCRIPT = """
import torch
import supernode as sn

@sn.kernel("n -> n")
def same(x):
    return x.clone()

with sn.connect("cpu:1") as node:
    node.compile(lambda x: same(x))(torch.arange(3.0))
"""


@pytest.mark.slow
def test_a_script_that_connects_wherever_it_is_run_is_told(tmp_path: Path):
    """A chip's process runs it for its kernels; `examples/own_kernel.py` shows how it is right."""
    script = tmp_path / "bare.py"
    script.write_text(SCRIPT, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    assert 'put what connects and trains under `if __name__ == "__main__":`' in ran.stderr


def test_supernode_needs_no_triton():
    code = "import sys; sys.modules['triton'] = None; import supernode as sn; sn.kernel; sn.connect"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
