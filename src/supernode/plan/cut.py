"""Cuts: how a mesh axis cuts a dim, as text."""


def cut(axis: str, groups: int = 1) -> str:
    """How `axis` cuts a dim: as a whole (`dp`), or each of `groups` equal groups of it (`cp:8`).

    A dim `(b s)` of 8 sequences whose tokens are split over cp is cut `cp:8`: every chip has some
    tokens of each sequence.
    """
    return axis if groups == 1 else f"{axis}:{groups}"


def cut_axis(each: str) -> str:
    """The mesh axis of a cut."""
    return each.partition(":")[0]


def time_axis(parts: int) -> str:
    """The axis of a cut in parts that run one after another; a draw says which it is for.

    >>> cut(time_axis(4), 8)
    '*4:8'
    """
    return f"*{parts}"


def cut_groups(each: str) -> int:
    """How many groups a cut cuts one by one; 1 where it cuts the dim as a whole."""
    return int(each.partition(":")[2] or 1)
