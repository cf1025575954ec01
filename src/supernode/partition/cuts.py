"""Between splits of factors and cuts of dims: a dim `(b s)` whose s cp splits is cut `cp:8`."""

from collections.abc import Mapping
from itertools import pairwise

from supernode.ops import Dim, Dims, Formula
from supernode.plan import (
    Layout,
    Within,
    bounds,
    cut,
    cut_groups,
    cut_name,
    cut_units,
    cut_within,
    has_stretches,
)

Split = dict[str, tuple[str, ...]]
"""How each factor is cut, outermost first."""


def cuts_of(dim: Dim, split: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> Dim:
    """How a dim made of these factors is cut, given the split of the factors."""
    out: list[str] = []
    outer = 1
    for factor in dim:
        for each in split.get(factor, ()):
            out.append(cut(cut_name(each), _inside(outer, each), cut_units(each)))
        outer *= sizes[factor]
    return tuple(out)


def _inside(outer: int, each: str) -> Within:
    """What a cut of a factor cuts one by one in a dim that has so many of the factor."""
    within = cut_within(each)
    return outer * within if isinstance(within, int) else within * outer


def layout_of(
    dims: Dims, split: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> tuple[tuple[str, ...], ...]:
    """The cuts of all dims."""
    return tuple(cuts_of(dim, split, sizes) for dim in dims)


def factor_of(dim: Dim, each: str, sizes: Mapping[str, int]) -> tuple[str, str] | None:
    """The factor of a dim that a cut cuts, and how; None where it cuts no single factor."""
    if has_stretches((each,)):
        factor = next((factor for factor in dim if sizes[factor] > 1), None)
        return (factor, each) if factor and sizes[factor] % _unit(each) == 0 else None
    groups, units, outer = cut_groups(each), cut_units(each), 1
    for factor in dim:
        if outer <= groups < outer * sizes[factor]:
            if groups % outer or (units and sizes[factor] // (groups // outer) % units):
                return None
            return factor, cut(cut_name(each), groups // outer, units)
        outer *= sizes[factor]
    return None


def split_of(dims: Dims, layout: Layout, sizes: Mapping[str, int]) -> Split | None:
    """The split of factors that gives a layout, or None if there is none."""
    split: Split = {}
    for dim, cuts in zip(dims, layout.dims, strict=True):
        for each in cuts:
            found = factor_of(dim, each, sizes)
            if found is None:
                return None
            factor, how = found
            if how not in split.get(factor, ()):
                split[factor] = (*split.get(factor, ()), how)
    return split


def with_stretches(formula: Formula, split: Split) -> Split:
    """The split with that of the stretches of its factors."""
    found, sizes = split, formula.sizes
    for factor, starts in formula.stretches.items():
        for inside, start in starts.items() if factor in split else ():
            cuts = (
                _of_stretch(each, sizes[factor], start, sizes[inside]) for each in split[factor]
            )
            found = {**found, inside: tuple(cuts)}
    return found


def cuts_stretches(formula: Formula, factor: str, each: str) -> bool:
    """Whether a cut of a factor cuts the stretches that lie in it one by one."""
    starts, size = formula.stretches.get(factor), formula.sizes[factor]
    if starts is None:
        return True
    ends = {place for s, at in starts.items() for place in (at, at + formula.sizes[s])}
    return size % _unit(each) == 0 and ends.issubset(bounds(each, size))


def _unit(each: str) -> int:
    """What the size of a dim must be a multiple of that is cut so."""
    within = cut_within(each)
    return within if isinstance(within, int) else sum(within)


def _of_stretch(each: str, size: int, start: int, length: int) -> str:
    """How a stretch of a dim is cut if the dim is cut so."""
    inside = [b - a for a, b in pairwise(bounds(each, size)) if start <= a < start + length]
    return cut(cut_name(each), tuple(inside), cut_units(each))
