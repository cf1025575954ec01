"""Tiers: how a group of chips meets the levels of a machine."""

from dataclasses import dataclass

from supernode.machine import Level, Machine


@dataclass(frozen=True, slots=True)
class Tier:
    """`factor` members of a group, each one chip or one subgroup, that meet at `level`."""

    level: Level
    factor: int


def tiers(machine: Machine, *, stride: int, size: int) -> tuple[Tier, ...]:
    """How a group of `size` chips, `stride` apart, meets the levels; the factors give `size`.

    A level whose groups the members do not fill evenly is passed over: its members meet higher up.

    Raises:
        LayoutError: the group is wider than the machine.
    """
    spanning = machine.level_spanning(stride * size)
    found: list[Tier] = []
    inside = 1
    for level in machine.levels:
        members = size if level is spanning else _members(level, stride, size)
        if members > inside and members % inside == 0 and size % members == 0:
            found.append(Tier(level, members // inside))
            inside = members
        if level is spanning:
            break
    return tuple(found)


def _members(level: Level, stride: int, size: int) -> int:
    return min(level.chips // stride, size) if level.chips % stride == 0 else 1
