"""What a backend makes one kernel of: which ops take time at all, and what the rest moves."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.capture import capture
from supernode.machine import load_machine
from supernode.models import Shape, sized
from supernode.models.experts import Experts, ExpertsConfig
from supernode.models.rotary import RMSNorm, rotate
from supernode.partition import partition
from supernode.simulate import Terms, simulate
from supernode.trace import Span

H100 = load_machine("hgx-h100")
CACHED = {"family": "llama", "layers": 2, "hidden": 256, "heads": 4, "vocab": 512, "ffn": 512}


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def kernels(function: Callable[..., Any], *args: Tensor, model: Any = None) -> list[Span]:
    """The kernels of one chip that run it, in order."""
    program = capture(function, model, (), args, name="kernels").program
    spans = simulate(partition(program, ""), H100, terms=Terms(host=False)).trace.spans
    return [span for span in spans if span.stream == "compute"]


def names(spans: list[Span]) -> list[str]:
    return [span.name.removeprefix("aten.") for span in spans]


def test_a_mask_made_of_positions_is_computed_by_attention() -> None:
    q, k = empty(2, 8, 1, 64), empty(2, 8, 512, 64)

    def step(q: Tensor, k: Tensor, position: Tensor) -> Tensor:
        seen = torch.arange(512, device=q.device)[None, :] <= position[:, None]
        return F.scaled_dot_product_attention(q, k, k, attn_mask=seen)

    (span,) = kernels(step, q, k, empty(1, dtype=torch.int64))
    assert "attention" in span.name


def test_a_mask_that_something_else_reads_is_computed() -> None:
    q, k = empty(2, 8, 1, 64), empty(2, 8, 512, 64)

    def step(q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        doubled = mask * 2
        return F.scaled_dot_product_attention(q, k, k, attn_mask=doubled), doubled

    assert len(kernels(step, q, k, empty(1, 512))) == 2


def sunk(q: Tensor, k: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """What an attention gives where each head also looks at nothing, and the sums of its scores."""
    aten = torch.ops.aten
    y, sums = aten._scaled_dot_product_flash_attention_for_cpu(q, k, k)[:2]
    share = (sums - torch.logaddexp(sums, sinks.float()[:, None])).exp()
    return y * share[..., None].to(y.dtype), sums


def test_sinks_are_part_of_attention() -> None:
    q, k, sinks = empty(2, 8, 1, 64), empty(2, 8, 512, 64), empty(8)
    (span,) = kernels(lambda q, k, s: sunk(q, k, s)[0], q, k, sinks)
    assert "attention" in span.name
    assert len(kernels(sunk, q, k, sinks)) > 1  # the sums are read elsewhere


def experts(n_experts: int = 16, *, bias: bool = False) -> tuple[nn.Module, Tensor]:
    how = {"bias": True} if bias else {"sigmoid": True}
    config = ExpertsConfig(n_experts=n_experts, top_k=2, d_expert=128, **how)
    with torch.device("meta"):
        return Experts(256, config).to(torch.bfloat16), empty(64, 256)


def test_routing_belongs_to_the_kernels_of_experts() -> None:
    """Scores, rows gathered, gate with up, their product, down, rows summed: six kernels."""
    model, x = experts()
    spans = kernels(lambda x: model(x), x, model=model)
    expected = ["mm", "index.Tensor", "_grouped_mm", "mul.Tensor", "_grouped_mm", "sum.dim_IntList"]
    assert names(spans) == expected
    gate_up, down = (span for span in spans if "grouped" in span.name)
    assert gate_up.flops == 2 * down.flops == 2 * 2 * (64 * 2) * 256 * 128


def test_biases_of_a_router_and_of_what_experts_give_belong_to_their_kernels() -> None:
    """As above: gate and up take their biases with their product, and sums those that were left."""
    model, x = experts(bias=True)
    spans = names(kernels(lambda x: model(x), x, model=model))
    assert "_to_copy" not in spans
    assert [name for name in spans if "mm" in name] == ["addmm", "_grouped_mm", "_grouped_mm"]
    assert not {"zeros_like", "scatter.src", "topk"} & set(spans)


def test_a_router_alone_takes_time() -> None:
    """Nothing is taken in where there are no experts to do it."""
    model, x = experts()
    spans = kernels(lambda x: model.get_submodule("router")(x), x, model=model)
    assert "topk" in names(spans)


def test_rows_summed_are_read_once_and_written_once() -> None:
    model, x = experts()
    spans = kernels(lambda x: model(x), x, model=model)
    rows, tokens = 64 * 2 * 256 * 2, 64 * 256 * 2
    gathered, summed = spans[1], spans[-1]
    places = 64 * 2 * 8
    assert gathered.bytes - places == tokens + rows
    assert rows + tokens <= summed.bytes <= rows + tokens + 3 * places


def test_a_product_of_widened_operands_is_one_of_narrow_ones() -> None:
    x, w = empty(64, 256), empty(16, 256)
    (span,) = kernels(lambda x, w: F.linear(x.float(), w.float()), x, w)
    assert span.bytes == 2 * (64 * 256 + 16 * 256) + 4 * 64 * 16
    wide = kernels(lambda x, w: F.linear(x.float(), w), x, w.float())
    assert names(wide) == ["_to_copy", "mm"]


def test_layout_is_chosen_by_the_kernel_that_makes_a_value() -> None:
    a, b = empty(8, 64, 32), empty(8, 32, 64)
    made = kernels(lambda a, b: (a @ b).transpose(0, 1).contiguous(), a, b)
    assert names(made) == ["bmm"]
    given = kernels(lambda a: a.transpose(0, 1).contiguous(), a)
    assert names(given) == ["clone"]


def test_turning_by_positions_is_one_kernel() -> None:
    x, turn = empty(2, 8, 128, 64), empty(128, 32)
    (span,) = kernels(lambda x, c, s: rotate(x, c, s), x, turn, turn)
    assert span.bytes == 2 * (2 * x.numel() + 2 * turn.numel())


def test_what_gathers_from_normed_rows_comes_after_them() -> None:
    with torch.device("meta"):
        norm = RMSNorm(256, 1e-6).to(torch.bfloat16)
    x, places = empty(64, 256), empty(128, dtype=torch.int64)
    assert len(kernels(lambda x, i: norm(x)[i], x, places, model=norm)) == 2
    (span,) = kernels(lambda x, i: (x * 2)[i] + 1, x, places)
    assert span.bytes == 2 * (64 + 128) * 256 + 128 * 8


def test_of_a_cache_only_the_new_rows_are_touched() -> None:
    new, at = empty(2, 1, 64), empty(1, dtype=torch.int64)

    class Cache(nn.Module):
        kept: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", empty(2, 512, 64))

        def forward(self, new: Tensor, at: Tensor) -> Tensor:
            return self.kept.index_copy_(1, at, new * 2)[0, 0, 0]

    model = Cache()
    span = kernels(lambda new, at: model(new, at), new, at, model=model)[0]
    assert span.bytes == 2 * 2 * new.numel() + 8


def test_a_buffer_written_in_parts_is_whole_again_with_no_copy() -> None:
    job = sized("llama", Shape(**CACHED), sequence=64, summary="").build(
        batch=4, device="meta", phase="decode"
    )
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    plan = partition(program, "dp=2,micro=2,turns")
    joined = [op for op in plan.local.main.ops if op.name == "aten.cat" and op.args[1] == 0]
    caches = [op for op in joined if len(op.outputs[0].type.shape) == 4]
    assert len(caches) == 2 * CACHED["layers"]  # keys and values
    inside = [span for span in simulate(plan, H100).trace.spans if "attention" in span.module]
    assert "local.part" not in {span.name for span in inside}
    most = caches[0].outputs[0].type.size_bytes
    assert all(span.bytes < most for span in inside if span.kind == "vector")
