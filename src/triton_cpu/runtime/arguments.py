"""Arguments of a launch → 8-byte slots, with checks of what their memory is."""

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ArgumentError

FORMATS = {
    "ptr": "Q",
    **{name: "q" for name in ("i1", "i8", "i16", "i32", "i64", "index")},
    "f16": "e6x",
    "bf16": "H6x",
    "f32": "f4x",
    "f64": "d",
}
"""`struct` format of one 8-byte slot, by the element kind the kernel reads from it."""


def flatten(signature: Sequence[Any]) -> list[tuple[tuple[int, ...], str]]:
    """Paths to the arguments that are no constants, and their types; tuples are nested."""
    found: list[tuple[tuple[int, ...], str]] = []

    def visit(types: Sequence[Any], path: tuple[int, ...]) -> None:
        for number, kind in enumerate(types):
            if isinstance(kind, tuple):
                visit(kind, (*path, number))
            elif kind != "constexpr":
                found.append(((*path, number), str(kind)))

    visit(signature, ())
    return found


def pointer_of(written: bool, name: str) -> Callable[[Any], int]:
    """A function that gives an argument's address, or says why it can't be used."""

    def address(value: Any) -> int:
        try:
            if value.is_cpu:  # a torch tensor, the usual case
                return value.data_ptr()
        except AttributeError:
            return _other_address(value, written, name)
        raise ArgumentError(
            f"Argument {name} lies on {value.device}; this kernel was compiled for the CPU.",
            fix=f"pass {name}.cpu(), or launch with Triton's own driver active",
        )

    return address


def _other_address(value: Any, written: bool, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    flags = getattr(value, "flags", None)
    if flags is not None and hasattr(value, "ctypes"):  # a NumPy array
        if not flags.c_contiguous:
            raise ArgumentError(
                f"Argument {name} is a NumPy array that is not contiguous.",
                fix="pass numpy.ascontiguousarray of it",
            )
        if written and not flags.writeable:
            raise ArgumentError(f"Argument {name} is read-only, and the kernel writes to it.")
        return int(value.ctypes.data)
    if hasattr(value, "data_ptr"):
        return int(value.data_ptr())
    raise ArgumentError(f"Argument {name} is a {type(value).__name__}, not an array.")


def memory_range(value: Any) -> tuple[int, int]:
    """First and last address of the allocation an argument lies in; no bounds if unknown."""
    storage = getattr(value, "untyped_storage", None)
    if storage is not None:
        memory = storage()
        start = int(memory.data_ptr())
        return start, start + int(memory.nbytes())
    if hasattr(value, "ctypes"):
        start = int(value.ctypes.data)
        return start, start + int(value.nbytes)
    inner = getattr(value, "base", None)
    if inner is not None and not isinstance(value, int):
        return memory_range(inner)
    return 0, (1 << 64) - 1


def scalar_of(kind: str) -> Callable[[Any], Any]:
    """A function that makes an argument what `FORMATS[kind]` packs. It is needed for bfloat16, and
    for numbers that `struct` refuses."""
    return {"f16": _half, "bf16": _bf16, "f32": _single, "f64": float}.get(kind, _wrapped)


def _wrapped(value: Any) -> int:
    """An unsigned 64-bit number keeps its pattern."""
    number = int(value)
    return number - (1 << 64) if number >= 1 << 63 else number


def _half(value: Any) -> float:
    """A number beyond the largest is infinite."""
    try:
        return struct.unpack("<e", struct.pack("<e", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _single(value: Any) -> float:
    return ctypes.c_float(value).value


def _bf16(value: Any) -> int:
    bits = struct.unpack("<I", struct.pack("<f", _single(value)))[0]
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
