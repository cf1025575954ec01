"""Reads a checkpoint, all of it checked before any of it is used."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from supernode.checkpoint.contents import (
    FORMAT,
    HOST,
    MANIFEST,
    STATE,
    WEIGHTS,
    Checkpoint,
    Contents,
)
from supernode.checkpoint.folder import newest, path_of
from supernode.checkpoint.write import checksum, manifest_checksum
from supernode.errors import CheckpointError
from supernode.ir import HostType, TensorType, Type

_SHOWN = 3


def read(folder: Path, expected: Mapping[str, Type]) -> tuple[Checkpoint, Contents]:
    """The newest checkpoint in `folder`, or the one that `folder` is.

    `expected` is what the step to load it into keeps, by name.

    Raises:
        CheckpointError: there is none, a file is damaged, or it is of another model.
    """
    path = _find(folder)
    try:
        manifest = _manifest(path)
        for name in (WEIGHTS, STATE, HOST):
            _check_file(path / name, **manifest["files"][name])
        contents = Contents(
            weights=load_file(path / WEIGHTS),
            state=load_file(path / STATE),
            numbers=manifest["numbers"],
            host=(path / HOST).read_bytes(),
            data=manifest["data"],
            about=manifest["about"],
        )
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    _check_same_model(path, contents, expected)
    return Checkpoint(path=path, done=manifest["done"], data=contents.data), contents


def _find(folder: Path) -> Path:
    if (folder / MANIFEST).is_file():
        return folder
    done = newest(folder)
    if done is None:
        raise CheckpointError(
            "there is no checkpoint",
            where=str(folder),
            fix="start without one, or name the folder it was saved to",
        )
    return path_of(folder, done)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: Any = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{MANIFEST}: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("crc32") != manifest_checksum(manifest):
        raise ValueError(f"{MANIFEST} is not as it was written")
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"the checkpoint is of format {manifest['format']}, this version reads {FORMAT}",
            where=str(path),
            fix="load it with the version of supernode that saved it",
        )
    return manifest


def _check_file(file: Path, *, bytes: int, crc32: str) -> None:
    size = file.stat().st_size
    if size != bytes:
        raise ValueError(f"{file.name} has {size} bytes, expected {bytes}")
    if (found := checksum(file)) != crc32:
        raise ValueError(f"{file.name} has checksum {found}, expected {crc32}")


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is damaged: {why}",
        where=str(path),
        fix=f"remove {path.name} to go on from the one before, if there is one",
    )


def _check_same_model(path: Path, contents: Contents, expected: Mapping[str, Type]) -> None:
    """Raises unless names, shapes and dtypes are those of the step."""
    differences = list(_differences(contents, expected))
    if differences:
        more = len(differences) - _SHOWN
        shown = "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(
            f"the checkpoint is of another model or optimizer: {shown}",
            where=str(path),
            fix="make the model and optimizer as they were when it was saved",
        )


def _differences(contents: Contents, expected: Mapping[str, Type]) -> Iterator[str]:
    found: dict[str, Type] = {name: HostType() for name in contents.numbers}
    for name, tensor in (*contents.weights.items(), *contents.state.items()):
        found[name] = TensorType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    for name, type in expected.items():
        if name not in found:
            yield f"it has no {name}"
        elif isinstance(type, HostType) != isinstance(found[name], HostType) or (
            isinstance(type, TensorType) and type != found[name]
        ):
            yield f"{name} is {found[name]}, the step's is {type}"
    for name in found:
        if name not in expected:
            yield f"the step has no {name}"
