"""What a checkpoint holds, and the names of its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supernode.errors import InputError

FORMAT = 1
"""Of the manifest. A reader refuses another one."""
MANIFEST = "checkpoint.json"
WEIGHTS, STATE, HOST = "model.safetensors", "state.safetensors", "host.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk: its folder, the number of steps done before it, and `data`.

    `data` is what the saver gave beside the state: where it was in its data, for one.
    """

    path: Path
    done: int
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A step's state, global and on the host.

    `weights` and `state` go to a file each; `numbers` is state that is no tensor; `host` what
    optimizers and schedulers keep, as torch saves it; `data` the user's own, which JSON can hold.
    `about` says by what it was made: for people, never read.
    """

    weights: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    numbers: Mapping[str, float]
    host: bytes
    data: Any
    about: Mapping[str, str | int]

    def __post_init__(self) -> None:
        for name, tensor in (*self.weights.items(), *self.state.items()):
            if tensor.dtype is torch.complex128:
                raise InputError(
                    f"{name} is complex128, which safetensors files can't hold",
                    fix="keep it as complex64, or as real and imaginary part",
                )


def checked_data(done: int, keep: int, data: object) -> Any:
    """`data` as it will be read again.

    Raises:
        InputError: `data` is nothing JSON can hold, or a number is too small.
    """
    if done < 0 or keep < 1:
        raise InputError(f"done = {done}, keep = {keep}: expected at least 0 and at least 1")
    try:
        return json.loads(json.dumps(data))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"data can't be saved: {error}",
            fix="make it of numbers, texts, lists and dicts with texts as keys",
        ) from None
