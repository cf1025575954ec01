"""Real text that every machine has: the sources of Python's standard library, byte by byte.

A token is a byte, so the vocabulary is 256 and no tokenizer is needed. Names of tensors end in
their dims: N the text, B batch, T tokens.
"""

import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from supernode.errors import InputError

VOCAB = 256

# Other people's packages, and tests (half the bytes, much of them tables of test data).
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test"}


@lru_cache(maxsize=1)
def standard_library_text(root: Path | None = None) -> Tensor:
    """The `.py` files of the standard library in order of their paths: uint8 `[N]`, about 12 MB.

    The same for one version of Python everywhere. `root` is another folder to read.

    Raises:
        InputError: the folder holds no Python sources.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    paths = sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts)
    kept = [path for path in paths if not _SKIPPED.intersection(path.relative_to(root).parts)]
    text = b"".join(path.read_bytes() for path in kept)
    if not text:
        raise InputError(
            "there are no Python sources to train on",
            where=str(root),
            fix="use a Python whose standard library lies on disk as .py files",
        )
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def byte_entropy(text_N: Tensor) -> float:
    """The entropy in nats of a byte of uint8 `text_N`, taken by itself.

    It is the loss of the best model that ignores all context: a lower loss has learnt from it.

    **Source:** Shannon, "A Mathematical Theory of Communication", 1948, section 6.
    """
    counts = torch.bincount(text_N, minlength=VOCAB).double()
    chances = counts[counts > 0] / counts.sum()
    return float(-(chances * chances.log()).sum())


def random_windows(
    text_N: Tensor, *, batch: int, length: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end: int64 tokens `[B, T]` from random places, and the tokens `[B, T]` that follow.

    Raises:
        InputError: the text has no window of `length + 1` bytes.
    """
    if len(text_N) <= length:
        raise InputError(
            f"a text of {len(text_N)} bytes has no window of {length + 1} bytes",
            fix="use a longer text or a shorter sequence",
        )
    generator = torch.Generator().manual_seed(seed)
    return _windows(text_N, batch, length, generator)


def _windows(
    text_N: Tensor, batch: int, length: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    offsets_1T = torch.arange(length + 1)[None, :]
    while True:
        starts_B1 = torch.randint(len(text_N) - length, (batch, 1), generator=generator)
        window = text_N[starts_B1 + offsets_1T].long()
        yield window[:, :-1].contiguous(), window[:, 1:].contiguous()
