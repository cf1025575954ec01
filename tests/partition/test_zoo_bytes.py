"""Common models send no more than the textbook schemes, and what the model itself needs.

The textbook's bytes are computed here from the sizes of the models, not from Programs.
"""

from functools import lru_cache

import pytest
from torch import nn

from supernode.partition import partition
from supernode.report.traffic import totals
from wires import parameter_bytes, passes
from zoo import BATCH, CNN, PIXELS, TOKENS, ZOO, zoo_step
from zoo_runs import Subject

OVER, FLOAT = 1.05, 4
LOSS_BYTES = 64
"""The sum of the loss and the count of its targets, in a few numbers."""
QUICK = ("llama", "swin")
CASES = [
    pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.zoo) for name in ZOO
]


@lru_cache
def subject(name: str) -> Subject:
    pytest.importorskip("transformers")
    return Subject(zoo_step(name))


def model_bytes(model: nn.Module) -> int:
    """What must be the same on all chips beside gradients: the loss, and the batch's statistics.

    Of these, mean and variance forward and two sums backward for each channel, and their count.
    """
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    return LOSS_BYTES + sum((4 * norm.num_features + 1) * FLOAT for norm in norms)


def check(name: str, layout: str, textbook: int) -> None:
    """`textbook` counts an all-reduce twice, any other collective once."""
    got = passes(partition(subject(name).captured.program, layout))
    assert got <= OVER * textbook, f"{got} bytes, textbook {textbook}: {got / textbook:.3f} times"


@pytest.mark.parametrize("name", CASES)
def test_data_parallel_adds_up_each_gradient_once(name: str) -> None:
    found = subject(name)
    gradients = parameter_bytes(found.captured.program)
    check(name, "dp=2", 2 * (gradients + model_bytes(found.made.model)))


@pytest.mark.parametrize("name", CASES)
def test_fsdp_gathers_weights_twice_and_scatters_gradients_once(name: str) -> None:
    found = subject(name)
    weights = parameter_bytes(found.captured.program)
    check(name, "fsdp=2", 3 * weights + 2 * model_bytes(found.made.model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paligemma", "qwen2.5-vl"])
def test_images_between_words_stay_with_their_samples(name: str) -> None:
    """What is told of tokens goes round: their kinds, or how many are images."""
    gathers = [
        op.outputs
        for op in partition(subject(name).captured.program, "dp=2").local.main.ops
        if op.name == "fabric.all_gather" and "visual" not in op.site.module
    ]
    assert gathers
    assert all(v.tensor.dtype == "int64" for values in gathers for v in values)


WIDTH, LAYERS = 32, 2
HIDDEN = BATCH * TOKENS * WIDTH * FLOAT
"""An activation between two layers."""
SOFTMAX = 4 * BATCH * TOKENS * FLOAT
"""Of logits split by words: the largest, the sum, the target's, and the gradient of the sum."""
ENDS = 2 * HIDDEN + SOFTMAX + LOSS_BYTES
"""The embedding forward, the output head backward, the softmax between them."""
DECODER = LAYERS * 4 * HIDDEN + ENDS


def decoder(tokens: int) -> int:
    """With so many tokens in a sequence."""
    return (DECODER - LOSS_BYTES) * tokens // TOKENS + LOSS_BYTES


SEEN = BATCH * 16 * WIDTH * FLOAT
"""An activation of a tower that sees images in 4 x 4 patches."""
FRAMES = BATCH * 16 * WIDTH * FLOAT
PATCHES = BATCH * (1 + (PIXELS // 8) ** 2) * WIDTH * FLOAT
STAGES = tuple(
    (depth, BATCH * (PIXELS // patch) ** 2 * width * FLOAT)
    for depth, patch, width in zip(CNN.depths, (4, 8), CNN.widths, strict=True)
)
"""How many blocks, and their activation."""

# What is added up for a tensor-parallel step. A layer of attention and MLP: 4 activations. One with
# cross-attention: 6, and the gradient of what its keys and values are made from.
TENSOR_PARALLEL = {
    "llama": DECODER,
    "gpt2": DECODER,
    "mixtral": DECODER,
    "qwen3-moe": DECODER,
    "deepseek-v3": DECODER,
    "gpt-oss": DECODER,
    "gemma3": DECODER,
    "bert": DECODER + 2 * HIDDEN,  # its head has a layer of its own
    "t5": LAYERS * (4 + 6 + 1) * HIDDEN + HIDDEN + ENDS,
    "whisper": LAYERS * (4 * FRAMES + 6 * HIDDEN + FRAMES) + ENDS,
    "mamba2": LAYERS * 2 * HIDDEN + ENDS,  # one product in, one out
    # Beside its decoder of 16 tokens, a tower, and what merges four patches to one token: a layer
    # whose result is a fourth of an activation, the gradient of what it reads a whole one.
    "qwen2.5-vl": decoder(16) + LAYERS * 4 * SEEN + SEEN // 4 + SEEN,
    # Its tower sees 2 x 2 patches; then a layer whose result is gathered, half of an all-reduce,
    # and whose gradient of what it reads is added up.
    "paligemma": decoder(12) + LAYERS * 4 * SEEN // 4 + SEEN // 8 + SEEN // 4,
    "vit": LAYERS * 4 * PATCHES + LOSS_BYTES + BATCH * WIDTH * FLOAT,
    "swin": sum(4 * blocks * size for blocks, size in STAGES),
    "convnext": sum(2 * blocks * size for blocks, size in STAGES) + LOSS_BYTES + SOFTMAX,
}


def _tensor_parallel(name: str) -> object:
    quick = name in (*QUICK, "gpt-oss")
    return pytest.param(name, marks=pytest.mark.slow if quick else pytest.mark.zoo)


@pytest.mark.parametrize("name", [_tensor_parallel(name) for name in TENSOR_PARALLEL])
def test_tensor_parallel_adds_up_four_activations_a_layer(name: str) -> None:
    check(name, "tp=2", 2 * TENSOR_PARALLEL[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "mixtral" else pytest.mark.zoo)
        for name in ("mixtral", "qwen3-moe", "deepseek-v3", "gpt-oss")
    ],
)
def test_tensor_parallel_inside_experts_adds_up_tokens(name: str) -> None:
    """As many bytes as without experts, and each chip holds its part of its experts."""
    plan = partition(subject(name).captured.program, "ep=2,tp=2")
    got = sum(each.sent_bytes for each in totals(plan) if each.axis == "tp")
    # ep halves the batch; an all-reduce over two chips sends what it adds up once.
    textbook = TENSOR_PARALLEL[name] / 2
    assert got <= OVER * textbook, f"{got} bytes, textbook {textbook}: {got / textbook:.3f} times"
    for port, whole, local in zip(
        plan.program.inputs, plan.program.main.inputs, plan.local.main.inputs, strict=True
    ):
        if ".experts." in port.name and len(getattr(whole.type, "shape", ())) == 3:  # its matrices
            assert whole.tensor.numel == 4 * local.tensor.numel, port.name
