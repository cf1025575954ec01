"""Ops and values of the tile IR: SSA, with blocks and regions for control flow."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .types import Type


def words(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


VIEWS = frozenset({"splat", "expand", "broadcast", "trans", "const", "range"})
"""Ops that only rename elements, or make them out of an index: never worth a buffer."""

CHEAP = words(
    "add sub mul and or xor shl shr sar cmp select sext zext trunc addptr smax smin umax umin"
    " sitofp ptrtoint inttoptr bitcast sdiv udiv srem urem"
)
"""Element-wise ops a reader recomputes rather than stores."""

TERMINATORS = frozenset({"yield", "return", "br", "cond_br", "condition", "combine_return"})


@dataclass(eq=False, slots=True)
class Value:
    """One SSA value: a result of `op`, or an argument of a block (`op` None)."""

    type: Type
    op: "Op | None" = None
    index: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, slots=True)
class Location:
    """Where in the user's kernel an op comes from."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "unknown line"


UNKNOWN = Location("", 0)


@dataclass(eq=False, slots=True)
class Op:
    """One operation; `attrs` hold what is known at compile time."""

    name: str
    operands: list[Value] = field(default_factory=list[Value])
    results: list[Value] = field(default_factory=list[Value])
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])
    regions: "list[Region]" = field(default_factory=lambda: [])
    location: Location = UNKNOWN

    @property
    def result(self) -> Value:
        """The only result."""
        return self.results[0]

    @property
    def is_elementwise(self) -> bool:
        """Each element of the result depends on the same element of the operands alone."""
        return self.name in ELEMENTWISE


@dataclass(eq=False, slots=True)
class Block:
    """Arguments, then ops; the last op is a terminator. `label` names it within its region."""

    args: list[Value] = field(default_factory=list[Value])
    ops: list[Op] = field(default_factory=list[Op])
    label: str = ""


@dataclass(eq=False, slots=True)
class Region:
    """A list of blocks; structured ops have one block, functions may have several."""

    blocks: list[Block] = field(default_factory=list[Block])

    @property
    def block(self) -> Block:
        """The first block."""
        return self.blocks[0]


@dataclass(eq=False, slots=True)
class Function:
    """A kernel or a device function. `divisibility` of argument i: a known factor of its value."""

    name: str
    region: Region
    result_types: list[Type]
    divisibility: list[int]
    location: Location = UNKNOWN

    @property
    def args(self) -> list[Value]:
        """The arguments."""
        return self.region.block.args


@dataclass(eq=False, slots=True)
class Module:
    """A kernel (`entry`) with the device functions it calls."""

    entry: str
    functions: dict[str, Function]

    @property
    def kernel(self) -> Function:
        """The function that is launched."""
        return self.functions[self.entry]


def walk(region: Region) -> Iterator[Op]:
    """Every op of `region`, outer before inner."""
    for block in region.blocks:
        for op in block.ops:
            yield op
            for inner in op.regions:
                yield from walk(inner)


ELEMENTWISE = words(
    "add sub mul div sdiv udiv srem urem rem and or xor shl shr sar neg cmp select smax smin umax"
    " umin fmaxnum fminnum fmaximum fminimum sqrt rsqrt exp exp2 log log2 sin cos erf tanh iabs"
    " fabs floor ceil rint round fma pow copysign clamp mulhi sext zext trunc sitofp uitofp fptosi"
    " fptoui fcast bitcast inttoptr ptrtoint addptr extern ceildiv ctpop ctlz cttz"
)
