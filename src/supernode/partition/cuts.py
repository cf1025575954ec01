"""Between splits of factors and cuts of dims: a dim `(b s)` whose s cp splits is cut `cp:8`."""

from collections.abc import Mapping

from supernode.ops import Dim, Dims
from supernode.plan import Layout, cut, cut_groups, cut_name, cut_units

Split = dict[str, tuple[str, ...]]
"""How each factor is cut, outermost first."""


def cuts_of(dim: Dim, split: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> Dim:
    """How a dim made of these factors is cut, given the split of the factors."""
    out: list[str] = []
    outer = 1
    for factor in dim:
        for each in split.get(factor, ()):
            out.append(cut(cut_name(each), outer * cut_groups(each), cut_units(each)))
        outer *= sizes[factor]
    return tuple(out)


def layout_of(
    dims: Dims, split: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> tuple[tuple[str, ...], ...]:
    """The cuts of all dims."""
    return tuple(cuts_of(dim, split, sizes) for dim in dims)


def factor_of(dim: Dim, each: str, sizes: Mapping[str, int]) -> tuple[str, str] | None:
    """The factor of a dim that a cut cuts, and how; None where it cuts no single factor."""
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
