"""Writes a checkpoint: it is there as a whole, or not at all."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from supernode.checkpoint.contents import FORMAT, HOST, MANIFEST, STATE, WEIGHTS, Contents
from supernode.checkpoint.folder import all_at_once, keep_newest, newest, path_of, sole_writer, sync
from supernode.errors import CheckpointError

_PIECE_BYTES = 2**22


def write(folder: Path, done: int, contents: Contents, keep: int) -> None:
    """Makes `contents` the newest checkpoint of `folder`, and removes all but `keep`.

    Raises:
        CheckpointError: the disk is full, the folder can't be written, another process writes.
            The checkpoints that were there stay.
    """
    try:
        with sole_writer(folder):
            with all_at_once(path_of(folder, done)) as partial:
                _fill(partial, done, contents)
            keep_newest(folder, keep)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(
            f"the checkpoint of step {done} could not be written: {why}",
            where=str(folder),
            fix=_what_to_do(folder),
        ) from None


def checksum(path: Path) -> str:
    """The CRC-32 of a file, as eight hexadecimal digits."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            crc = zlib.crc32(piece, crc)
    return f"{crc:08x}"


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """The CRC-32 of all that a manifest says but this."""
    said = {key: value for key, value in manifest.items() if key != "crc32"}
    return f"{zlib.crc32(json.dumps(said, sort_keys=True).encode()):08x}"


def _fill(partial: Path, done: int, contents: Contents) -> None:
    for name, tensors in ((WEIGHTS, contents.weights), (STATE, contents.state)):
        save_file(dict(tensors), partial / name, metadata={"format": "pt"})
    (partial / HOST).write_bytes(contents.host)
    for name in (WEIGHTS, STATE):  # for its writer alone, as safetensors makes them
        (partial / name).chmod((partial / HOST).stat().st_mode)
    files = {name: _on_disk(partial / name) for name in (WEIGHTS, STATE, HOST)}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "done": done,
        "about": contents.about,
        "files": files,
        "numbers": contents.numbers,
        "data": contents.data,
    }
    path = partial / MANIFEST
    manifest["crc32"] = manifest_checksum(manifest)
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(path)


def _on_disk(path: Path) -> dict[str, str | int]:
    sync(path)
    return {"bytes": path.stat().st_size, "crc32": checksum(path)}


def _what_to_do(folder: Path) -> str:
    last = newest(folder)
    go_on = "start again" if last is None else f"go on from step {last}, which is whole"
    return f"free space or mend the rights of the folder, then {go_on}"
