"""Values that lie alike as one row: of one shape, in one layout, under names that differ in layer
numbers only."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from supernode.ir import Role, TensorType
from supernode.plan import Layout, Mesh
from supernode.report.repeats import common_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """`count` values that lie alike: `whole` is the type of one, `piece` that of the piece that a
    chip has, if it has one.

    `name` is that of a parameter, or the path of the module that an activation comes from.
    `strays` marks optimizer state of its parameter's rank or lower that lies otherwise than it.
    """

    name: str
    role: Role | Literal["activation"]
    count: int
    whole: TensorType
    piece: TensorType
    layout: Layout
    reason: str
    strays: bool = False

    @property
    def bytes_per_chip(self) -> int:
        """What all `count` pieces of one chip take, wherever they live."""
        return self.count * self.piece.size_bytes

    @property
    def where(self) -> str:
        """Which chips have it, and where it lives, if that is not each and in its own memory."""
        stages = "".join(f" {axis}@{coordinate}" for axis, coordinate in self.layout.only)
        return stages + (f" in {self.layout.place}" if self.layout.place else "")


def held_bytes(rows: Iterable[Laid]) -> int:
    """What `rows` take in the memory of the chip that holds most of them; what lives elsewhere
    takes none."""
    everywhere, by_stage = 0, Counter[tuple[tuple[str, int], ...]]()
    for row in rows:
        if row.layout.only and not row.layout.place:
            by_stage[row.layout.only] += row.bytes_per_chip
        elif not row.layout.place:
            everywhere += row.bytes_per_chip
    return everywhere + max(by_stage.values(), default=0)


@dataclass(frozen=True, slots=True)
class Row:
    """What the values of one row agree in."""

    role: Role | Literal["activation"]
    pattern: str
    whole: TensorType
    layout: Layout
    strays: bool


class Rows:
    """Rows in the order in which they are first met."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._found: dict[Row, tuple[str, list[str], list[int]]] = {}

    def add(self, row: Row, name: str, count: int, reason: str) -> None:
        _, names, counts = self._found.setdefault(row, (reason, [], []))
        names.append(name)
        counts.append(count)

    def laid(self) -> tuple[Laid, ...]:
        return tuple(
            Laid(
                name=common_name(names),
                role=row.role,
                count=sum(counts),
                whole=row.whole,
                piece=TensorType(
                    row.whole.dtype,
                    replace(row.layout, only=()).local_shape(
                        row.whole.shape, self._mesh, row.layout.holders(self._mesh)[0]
                    ),
                ),
                layout=row.layout,
                reason=reason,
                strays=row.strays,
            )
            for row, (reason, names, counts) in self._found.items()
        )
