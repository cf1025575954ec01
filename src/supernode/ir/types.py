"""Types and values of a Program: tensors by dtype and shape, host numbers, and SSA values."""

import math
from dataclasses import dataclass

from supernode.errors import VerifyError

DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}
"""Size of one element in bytes, by dtype name (torch's names without `torch.`)."""

_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}


def short_dtype(dtype: str) -> str:
    """The name a printed Program uses.

    >>> short_dtype("bfloat16"), short_dtype("int64"), short_dtype("bool")
    ('bf16', 'i64', 'bool')
    """
    letters = dtype.rstrip("0123456789")
    return _SHORT[letters] + dtype[len(letters) :] if letters in _SHORT else dtype


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dtype name and a shape. No strides: layout in memory is the executor's choice."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise VerifyError(f"unknown dtype {self.dtype!r}", fix="add it to ir/types.py")

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The number of bytes, densely packed."""
        return self.numel * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{short_dtype(self.dtype)}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class HostType:
    """A number on the host: learning rate, step count and what is computed from them.

    Host numbers are never sharded; every worker computes them alike in double precision.
    """

    dtype: str = "float64"

    @property
    def size_bytes(self) -> int:
        """Zero: it lives in a register of the host."""
        return 0

    def __str__(self) -> str:
        return f"host {short_dtype(self.dtype)}"


Type = TensorType | HostType


@dataclass(frozen=True, slots=True)
class Value:
    """The one result of an op or an input of a block; `id` is unique within its block."""

    id: int
    type: Type

    @property
    def tensor(self) -> TensorType:
        """The type, where it must be a tensor's."""
        assert isinstance(self.type, TensorType), f"%{self.id} is a host number"
        return self.type

    def __str__(self) -> str:
        return f"%{self.id}"


@dataclass(frozen=True, slots=True)
class DType:
    """A dtype as an argument of an op (`aten._to_copy(x, dtype=bf16)`)."""

    name: str

    def __str__(self) -> str:
        return short_dtype(self.name)


Arg = Value | DType | int | float | str | None | tuple["Arg", ...]
