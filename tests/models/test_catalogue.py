from itertools import islice

import pytest
import torch

from supernode.errors import InputError, UnknownName
from supernode.models import PHASES, byte_entropy, recipe, recipes, standard_library_text

# Source: the parameter counts of the published checkpoints, of MPT those that its benchmarks print,
# of DeepSeek-V3 the 671 B without the module ahead. GPT-3 is published as "175B", and has not
# 50,257 tokens here. MiniMax-M2 is published as "230B"; its checkpoint has 228.7 B.
PUBLISHED = {
    "gpt-mini": (10.9e6, 0.01),
    "mpt-7b": (6_658_859_008, 0),
    "mpt-30b": (29_975_214_080, 0),
    "llama2-7b": (6_738_415_616, 0),
    "llama2-13b": (13_015_864_320, 0),
    "llama2-70b": (68_976_648_192, 0),
    "mixtral-8x7b": (46_702_792_704, 0),
    "qwen2-7b": (7_615_616_512, 0),
    "qwen3-32b": (32_762_123_264, 0),
    "qwen3-30b-a3b": (30_532_122_624, 0),
    "qwen3-235b-a22b": (235_093_634_560, 0),
    "gpt-oss-20b": (20_914_757_184, 0),
    "gpt-oss-120b": (116_829_156_672, 0),
    "minimax-m2": (228.7e9, 0.001),
    "llama3-8b": (8_030_261_248, 0),
    "llama3-70b": (70_553_706_496, 0),
    "gpt3-175b": (175e9, 0.005),
    "llama3-405b": (405_853_388_800, 0),
}
TRAINABLE = [known.name for known in recipes() if known.trainable]
SIZES = [known.name for known in recipes() if not known.trainable]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name: str):
    count, tolerance = PUBLISHED[name]
    model = recipe(name).build(device="meta").model
    assert model.parameter_count() == pytest.approx(count, rel=tolerance, abs=0)


def test_deepseek_v3_has_671_billion_parameters_without_the_module_ahead():
    model = recipe("deepseek-v3").with_shape({"mtp": 0}).build(device="meta").model
    assert model.parameter_count() == pytest.approx(671e9, rel=1e-3)


def test_another_size_of_a_family_is_one_call():
    other = recipe("llama3-8b").with_shape({"layers": 3, "hidden": 256, "heads": 4, "kv_heads": 2})
    model = other.build(device="meta", sequence=64).model
    assert len(model.blocks) == 3
    assert model.embedding.weight.shape == (128_256, 256)
    assert other.summary.endswith("with layers=3, hidden=256, heads=4, kv_heads=2")
    assert recipe("llama3-8b").with_shape({}) is recipe("llama3-8b")


@pytest.mark.parametrize(
    ("name", "changes", "wrong"),
    [
        ("llama3-8b", {"layer": 3}, "a shape has no 'layer'"),
        ("llama3-8b", {"layers": -1}, "layers must be at least 0"),
        ("gpt-mini", {"layers": 3}, "gpt-mini has no shape to change"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(name: str, changes: dict[str, int], wrong: str):
    with pytest.raises((InputError, UnknownName), match=wrong):
        recipe(name).with_shape(changes)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_a_step_of_each_phase_handles_its_tokens(name: str, phase: str):
    job = recipe(name).build(batch=4, sequence=16, phase=phase)
    result = job.step(*job.inputs)
    handled = {"train": 64, "prefill": 64, "decode": 4}[phase]
    assert job.tokens_per_step == handled
    assert (job.optimizer == ()) == (phase != "train")
    shape = {"train": (), "prefill": (4, 256), "decode": (4, 1, 256)}[phase]
    assert result.shape == shape
    assert phase == "train" or int(job.model.held) == 16


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UnknownName, match="there is no recipe 'llama3-80b'") as caught:
        recipe("llama3-80b")
    assert "llama3-8b" in caught.value.fix


@pytest.mark.parametrize("known", recipes(), ids=lambda known: known.name)
def test_on_meta_nothing_is_allocated(known):
    job = known.build(device="meta", batch=3)
    tensors = (*job.model.parameters(), *job.model.buffers(), *job.inputs)
    assert all(tensor.is_meta for tensor in tensors)
    assert [tuple(t.shape) for t in job.inputs] == [(3, known.sequence)] * 2
    assert job.tokens_per_step == 3 * known.sequence
    assert job.batches is None
    assert job.sample is None


@pytest.mark.parametrize("name", [*TRAINABLE, "llama3-8b"])
def test_a_step_runs_on_meta(name: str):
    job = recipe(name).build(device="meta")
    loss = job.step(*job.inputs)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert not loss.requires_grad
    assert len(job.optimizer.state) == len(list(job.model.parameters()))


@pytest.mark.parametrize("name", SIZES)
def test_a_size_is_bfloat16_and_grows_with_the_chips(name: str):
    known = recipe(name)
    assert known.batch_for(384) == 384
    assert {p.dtype for p in known.build(device="meta").model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_run_on_text_keeps_its_batch_on_any_number_of_chips(name: str):
    known = recipe(name)
    assert known.batch_for(1) == known.batch_for(8) == known.default_batch


def test_the_sequence_is_a_parameter():
    job = recipe("gpt3-175b").build(device="meta", batch=2, sequence=512)
    assert job.inputs[0].shape == (2, 512)
    assert job.model.context == 512


@pytest.mark.parametrize(
    "asked", [{"batch": 0}, {"sequence": -1}, {"device": "cuda"}, {"phase": "serve"}]
)
def test_what_cannot_be_built_is_refused(asked: dict[str, int]):
    with pytest.raises(InputError, match="asked: gpt-tiny with batch"):
        recipe("gpt-tiny").build(**asked)


def test_building_is_deterministic_and_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    first = recipe("gpt-tiny").build()
    drawn = torch.rand(1)
    second = recipe("gpt-tiny").build()
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(1))
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("gpt-tiny", marks=pytest.mark.slow),
        pytest.param("llama-tiny", marks=pytest.mark.zoo),
    ],
)
def test_a_tiny_recipe_learns_and_repeats_itself(name: str):
    def losses(steps: int) -> list[float]:
        job = recipe(name).build()
        assert job.batches is not None
        return [float(job.step(*batch)) for batch in islice(job.batches(), steps)]

    run = losses(150)
    assert losses(5) == run[:5]
    assert sum(run[-20:]) / 20 < byte_entropy(standard_library_text())


def test_a_sample_starts_with_the_prompt_and_repeats_itself():
    job = recipe("gpt-tiny").build()
    assert job.sample is not None
    text = job.sample(40)
    assert text.startswith("\ndef ")
    assert text == job.sample(40)


@pytest.mark.zoo
def test_gpt_mini_learns_from_context_within_forty_steps():
    job = recipe("gpt-mini").build()
    assert job.batches is not None
    losses = [float(job.step(*batch)) for batch in islice(job.batches(), 40)]
    assert sum(losses[-5:]) / 5 < byte_entropy(standard_library_text()) - 0.3
