"""Cuts: how a mesh axis cuts a dim, as text."""


def cut(axis: str, groups: int = 1) -> str:
    """How `axis` cuts a dim: as a whole (`dp`), or each of `groups` equal groups of it (`cp:8`).

    A dim `(b s)` of 8 sequences whose tokens are split over cp is cut `cp:8`: every chip has some
    tokens of each sequence.
    """
    return axis if groups == 1 else f"{axis}:{groups}"


def by_expert(each: str) -> str:
    """The same cut of sorted rows, but by where their experts are (`ep~`), not their tokens (`ep`).

    How many rows a chip has is then known only when the step runs; types of local values give the
    number for balanced routing.
    """
    name, groups = cut_name(each), cut_groups(each)
    return each if name.endswith("~") else cut(f"{name}~", groups)


def by_token(each: str) -> str:
    """The same cut by where tokens are."""
    return cut(cut_axis(each), cut_groups(each))


def cut_name(each: str) -> str:
    """A cut without its groups."""
    return each.partition(":")[0]


def cut_axis(each: str) -> str:
    """The mesh axis of a cut."""
    return cut_name(each).removesuffix("~")


def time_axis(parts: int) -> str:
    """The axis of a cut in parts that run one after another; a draw says which it is for.

    >>> cut(time_axis(4), 8)
    '*4:8'
    """
    return f"*{parts}"


def cut_groups(each: str) -> int:
    """How many groups a cut cuts one by one; 1 where it cuts the dim as a whole."""
    return int(each.partition(":")[2] or 1)
