"""A recipe gives a model, its step and its inputs, all written for one chip."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from supernode.errors import InputError
from supernode.models.language import LanguageModel
from supernode.models.shape import Shape
from supernode.models.text import random_windows, standard_library_text

Device = Literal["cpu", "meta"]
Batch = tuple[Tensor, ...]

PHASES = ("train", "prefill", "decode")
"""What a step may be."""
_PROMPT = b"\ndef "


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a recipe builds. Inputs are int64: to train, tokens and targets, both `[batch,
    sequence]`; to prefill, the prompts `[batch, sequence]`; to decode, the next tokens.

    `step(*inputs)` is one plain PyTorch step. To train it returns the loss in nats per token; to
    serve, the scores of the next tokens, with the keys and values of earlier ones as buffers.
    `batches()` gives real data without end, the same each time; `sample(count)` is what the model,
    as trained so far, writes in `count` tokens. Both are None where nothing can be trained: for a
    recipe that is a size only, on "meta", and to serve, where `optimizer` is empty.
    """

    model: LanguageModel
    optimizer: torch.optim.Optimizer | tuple[()]
    step: Callable[..., Tensor]
    inputs: Batch
    tokens_per_step: int
    batches: Callable[[], Iterator[Batch]] | None
    sample: Callable[[int], str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a recipe trains: AdamW at a constant rate, gradients clipped to a norm of `clip`."""

    learning_rate: float
    dtype: torch.dtype = torch.float32
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named model with everything it takes to train it.

    `model(context)` is the model for sequences of up to `context` tokens. A trainable recipe has
    real data, and keeps its `default_batch` of sequences on any number of chips; for the others,
    which have only a size, `default_batch` is what each chip gets. With a `shape`, which makes the
    model, `with_shape` gives another size of the same family.
    """

    name: str
    summary: str
    model: Callable[[int], LanguageModel]
    training: Training
    sequence: int
    default_batch: int
    trainable: bool
    shape: Shape | None = None

    def batch_for(self, chips: int) -> int:
        """The sequences of one step over all of so many chips."""
        return self.default_batch if self.trainable else self.default_batch * chips

    def with_shape(self, changes: Mapping[str, int]) -> "Recipe":
        """This recipe with other numbers in its shape: `{"layers": 40, "hidden": 5120}`.

        Raises:
            UnknownName: the shape has no such number; the nearest are named.
            InputError: a number is negative, or the recipe has no shape.
        """
        if not changes:
            return self
        if self.shape is None:
            raise InputError(
                f"{self.name} has no shape to change", fix="use one of the published sizes"
            )
        shape = self.shape.changed(changes)
        said = ", ".join(f"{name}={value}" for name, value in changes.items())
        summary = f"{self.summary}, with {said}"
        return replace(self, shape=shape, model=shape.model, summary=summary)

    def build(
        self,
        batch: int | None = None,
        device: Device = "cpu",
        sequence: int | None = None,
        phase: str = "train",
        ahead: int = 1,
    ) -> Job:
        """The job with `batch` sequences a step over all chips, each of `sequence` tokens.

        On "meta" nothing is allocated, which is how a model too large for this host is planned.
        The weights are the same every time, and torch's global generator is left as it was. To
        decode, `sequence` is the number of places in the cache, all read at each step, and `ahead`
        how many tokens of each sequence a step handles: one, and guesses to be checked with it.

        Raises:
            InputError: a number is not positive, there is no such phase, or the device is neither
                "cpu" nor "meta".
        """
        batch = self.default_batch if batch is None else batch
        sequence = self.sequence if sequence is None else sequence
        asked = f"{self.name} with batch {batch} and sequence {sequence} on {device}"
        if batch < 1 or sequence < 1 or ahead < 1:
            raise InputError("batch and sequence must be at least 1", asked=asked)
        if device not in ("cpu", "meta"):
            raise InputError(f"a recipe is built on cpu or meta, not on {device}", asked=asked)
        if phase not in PHASES:
            raise InputError(f"a step is one of {', '.join(PHASES)}, not {phase}", asked=asked)
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(self.training.seed)
            model = self.model(sequence).to(self.training.dtype)
            if phase == "train":
                inputs = tuple(torch.randint(model.vocab, (batch, sequence)) for _ in range(2))
                return self._train_job(model, inputs, device)
            length = sequence if phase == "prefill" else ahead
            prompts = torch.randint(model.vocab, (batch, length))
            return _serving_job(model.eval(), prompts, sequence, phase)

    def _train_job(self, model: LanguageModel, inputs: Batch, device: Device) -> Job:
        batch, sequence = inputs[0].shape
        optimizer = _optimizer(model, self.training)
        real = self.trainable and device == "cpu"
        return Job(
            model=model,
            optimizer=optimizer,
            step=_train_step(model, optimizer, self.training.clip),
            inputs=inputs,
            tokens_per_step=batch * sequence,
            batches=_text_batches(batch, sequence, self.training.seed) if real else None,
            sample=_sampler(model, self.training.seed) if real else None,
        )


def _serving_job(model: LanguageModel, prompts: Tensor, places: int, phase: str) -> Job:
    model.remember(len(prompts), places)
    model.held.fill_(0 if phase == "prefill" else places - prompts.shape[1])
    return Job(
        model=model,
        optimizer=(),
        step=model.prefill if phase == "prefill" else model.decode,
        inputs=(prompts,),
        tokens_per_step=prompts.numel() if phase == "prefill" else len(prompts),
        batches=None,
        sample=None,
    )


def _optimizer(model: nn.Module, how: Training) -> torch.optim.Optimizer:
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        learning, lr=how.learning_rate, betas=how.betas, weight_decay=how.weight_decay
    )


def _train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, clip: float
) -> Callable[..., Tensor]:
    def train_step(tokens: Tensor, targets: Tensor) -> Tensor:
        loss = model(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return train_step


def _text_batches(batch: int, length: int, seed: int) -> Callable[[], Iterator[Batch]]:
    def batches() -> Iterator[Batch]:
        return random_windows(standard_library_text(), batch=batch, length=length, seed=seed)

    return batches


def _sampler(model: LanguageModel, seed: int) -> Callable[[int], str]:
    def sample(count: int) -> str:
        generator = torch.Generator().manual_seed(seed)
        tokens_BT = model.generate(torch.tensor([list(_PROMPT)]), count, generator=generator)
        return bytes(tokens_BT[0].tolist()).decode("utf-8", errors="replace")

    return sample
