"""Types of the tile IR: an element kind, and a shape for tiles."""

import functools
import re
from dataclasses import dataclass
from math import prod

from ..errors import UnsupportedOp


@dataclass(frozen=True, slots=True)
class Elem:
    """The kind of one element: its name, its size in bits and the LLVM type that holds it."""

    name: str
    bits: int
    llvm: str

    @property
    def is_float(self) -> bool:
        """A float type LLVM computes with: f16, bf16, f32, f64."""
        return self.llvm in ("half", "bfloat", "float", "double")

    @property
    def is_fp8(self) -> bool:
        """An 8-bit float: stored as a byte, converted by bit arithmetic."""
        return self.name.startswith("f8")

    @property
    def is_int(self) -> bool:
        """An integer of 1 to 64 bits (MLIR integers carry no sign)."""
        return self.name.startswith("i")

    @property
    def is_pointer(self) -> bool:
        """The address of an element in the caller's memory."""
        return self.name == "ptr"

    @property
    def size_bytes(self) -> int:
        """Bytes of one element in memory; a truth value takes one byte."""
        return max(1, self.bits // 8)

    @property
    def memory(self) -> str:
        """The LLVM type in memory: `i8` for `i1`, else the same as in registers."""
        return "i8" if self.bits == 1 else self.llvm


def _elems() -> dict[str, Elem]:
    rows = [("ptr", 64, "ptr"), ("f16", 16, "half"), ("bf16", 16, "bfloat")]
    rows += [("f32", 32, "float"), ("f64", 64, "double"), ("index", 64, "i64")]
    rows += [(f"i{bits}", bits, f"i{bits}") for bits in (1, 4, 8, 16, 32, 64, 128)]
    rows += [(name, 8, "i8") for name in ("f8E5M2", "f8E4M3FN", "f8E4M3FNUZ", "f8E5M2FNUZ")]
    rows += [("f8E4M3B11FNUZ", 8, "i8")]
    return {name: Elem(name, bits, llvm) for name, bits, llvm in rows}


ELEMS = _elems()
I1, I8, I16, I32, I64 = (ELEMS[name] for name in ("i1", "i8", "i16", "i32", "i64"))
F16, BF16, F32, F64 = (ELEMS[name] for name in ("f16", "bf16", "f32", "f64"))
PTR = ELEMS["ptr"]


@dataclass(frozen=True, slots=True)
class Type:
    """A scalar (`shape` None) or a tile of `elem`; `pointee` is what a pointer points to."""

    elem: Elem
    shape: tuple[int, ...] | None = None
    pointee: Elem | None = None

    @property
    def is_tile(self) -> bool:
        """Whether this is a tile rather than a scalar."""
        return self.shape is not None

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape; `()` for a scalar."""
        return self.shape or ()

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.dims)

    def with_shape(self, shape: tuple[int, ...] | None) -> "Type":
        """The same element in another shape."""
        return Type(self.elem, shape, self.pointee)

    def with_elem(self, elem: Elem) -> "Type":
        """The same shape of another element (not a pointer)."""
        return Type(elem, self.shape)

    def __str__(self) -> str:
        elem = f"*{self.pointee.name}" if self.pointee else self.elem.name
        return elem if self.shape is None else f"{elem}[{', '.join(map(str, self.shape))}]"


_TENSOR = re.compile(r"tensor<((?:\d+x)*)(.*)>$", re.DOTALL)
_POINTER = re.compile(r"!tt\.ptr<(.*)>$", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def parse_type(text: str) -> Type:
    """The type MLIR writes as `text`: `i32`, `!tt.ptr<f16>`, `tensor<8x4xf32>`, …"""
    tensor = _TENSOR.match(text)
    if tensor:
        shape = tuple(int(size) for size in tensor[1].split("x") if size)
        inner = parse_type(tensor[2].split(", #")[0])
        return Type(inner.elem, shape, inner.pointee)
    pointer = _POINTER.match(text)
    if pointer:
        return Type(PTR, None, parse_type(pointer[1].split(", ")[0]).elem)
    if text not in ELEMS:
        raise UnsupportedOp(f"Values of type {text} have no place on a CPU.")
    return Type(ELEMS[text])
