"""Formula: what each dim of an op's inputs and outputs is called, so that rules can be derived.

`mm: m k, k n -> m n` says: factors m and n may split the output, factor k splits into partial
sums. A dim may be made of several factors, outermost first: the view `(b s) d -> b s d`. Only the
outermost factor of a dim can be split over chips, since pieces are contiguous.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from supernode.ir import HostType, Op, Value

Dim = tuple[str, ...]
Dims = tuple[Dim, ...]

SUM = "sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """The named factors of one op, instantiated for its shapes.

    `inputs` has one entry per value in `op.inputs` (a host number has no dims). A dim without a
    factor can't be split. A factor in `whole` can't be split either, though it is named. A factor
    that no output has is reduced: each part gives a partial result of kind `reduced[factor]`.
    Of the inputs in `unread` no element is read, so any layout will do. Where a factor is split,
    the inputs in `partial[factor]` are read as they are on each chip: partial sums.

    `stretches[factor]` are the factors that lie in it, with where each starts: of a `cat` of a and
    b along n, {"n": {"a": 0, "b": size of a}}. They split together, each in its own parts.
    """

    inputs: tuple[Dims, ...]
    outputs: tuple[Dims, ...]
    sizes: Mapping[str, int]
    whole: frozenset[str] = frozenset()
    reduced: Mapping[str, str] = field(default_factory=dict[str, str])
    unread: frozenset[int] = frozenset()
    partial: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    stretches: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])

    @property
    def inside(self) -> frozenset[str]:
        """The factors that are stretches of others."""
        return frozenset().union(*self.stretches.values())

    def splittable(self, factor: str) -> bool:
        """Whether parts of `factor` can be computed apart: it is outermost wherever it appears."""
        if factor in self.whole | self.inside or factor in self.stretches:
            return False
        dims = [dim for dims in self.inputs + self.outputs for dim in dims if factor in dim]
        return all(dim[0] == factor for dim in dims)

    def kind(self, factor: str, output: int) -> str | None:
        """How parts of `factor` combine in `output`: None where the output is split."""
        if any(factor in dim for dim in self.outputs[output]):
            return None
        if factor in self.stretches or factor in self.inside:
            return None
        return self.reduced.get(factor, SUM)


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape, `()` for a host number."""
    return () if isinstance(value.type, HostType) else value.type.shape


def parse(template: str) -> tuple[tuple[Dims, ...], tuple[Dims, ...]]:
    """Dims of the inputs and outputs of `b (g r) s, b g t -> b (g r) s`; `1` is a bare dim."""
    left, right = template.split("->")
    return _side(left), _side(right)


def _side(text: str) -> tuple[Dims, ...]:
    return tuple(_dims(part) for part in text.split(",")) if text.strip() else ()


def _dims(text: str) -> Dims:
    dims: list[Dim] = []
    group: list[str] | None = None
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            group = []
        elif word == ")":
            assert group is not None
            dims.append(tuple(group))
            group = None
        elif group is not None:
            group.append(word)
        else:
            dims.append(() if word == "1" else (word,))
    return tuple(dims)


def sizes_of(
    values: tuple[tuple[Dims, tuple[int, ...]], ...], given: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Factor sizes from shapes; one unknown factor per composite dim is solved for."""
    sizes = dict(given or {})
    pending = [(dim, n) for dims, shape in values for dim, n in zip(dims, shape, strict=True)]
    for dim, n in sorted(pending, key=lambda item: len(item[0])):
        unknown = [factor for factor in dim if factor not in sizes]
        known = math.prod(sizes[factor] for factor in dim if factor in sizes)
        if len(unknown) == 1:
            sizes[unknown[0]] = n // known
        assert not dim or math.prod(sizes[factor] for factor in dim) == n, (dim, n, sizes)
    return sizes


def from_template(
    op: Op,
    template: str,
    *,
    whole: str = "",
    reduced: Mapping[str, str] | None = None,
    inputs: tuple[Value, ...] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Formula:
    """The Formula of `op` by a template over its inputs (or those given) and its outputs.

    `sizes` gives those of factors that the shapes leave open.
    """
    read = op.inputs if inputs is None else inputs
    ins, outs = parse(template)
    shapes = tuple(shape_of(value) for value in read + op.outputs)
    return Formula(
        inputs=ins,
        outputs=outs,
        sizes=sizes_of(tuple(zip(ins + outs, shapes, strict=True)), sizes),
        whole=frozenset(whole.split()),
        reduced=dict(reduced or {}),
    )


def bare(op: Op) -> Formula:
    """No dim of any value can be split."""
    return Formula(
        inputs=tuple(((),) * len(shape_of(value)) for value in op.inputs),
        outputs=tuple(((),) * len(shape_of(value)) for value in op.outputs),
        sizes={},
    )


def alike_but(op: Op, whole: Collection[int]) -> Formula:
    """All values have the rank of the first output; the dims in `whole` can't be split."""
    rank = len(shape_of(op.outputs[0]))
    dims: Dims = tuple(() if k in whole else (f"i{k}",) for k in range(rank))
    sizes = {dim[0]: n for dim, n in zip(dims, shape_of(op.outputs[0]), strict=True) if dim}
    return Formula(inputs=(dims,) * len(op.inputs), outputs=(dims,) * len(op.outputs), sizes=sizes)


def broadcast(op: Op) -> Formula:
    """Pointwise with broadcasting: one factor a dim of the output."""
    (out,) = {shape_of(value) for value in op.outputs}
    names = [f"i{k}" for k in range(len(out))]
    sizes = {name: size for name, size in zip(names, out, strict=True) if size != 1}

    def dims(shape: tuple[int, ...]) -> Dims:
        offset = len(out) - len(shape)
        return tuple(() if size == 1 else (names[k + offset],) for k, size in enumerate(shape))

    return Formula(
        inputs=tuple(dims(shape_of(value)) for value in op.inputs),
        outputs=tuple(dims(out) for _ in op.outputs),
        sizes=sizes,
    )


def regroup(shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[Dims, Dims, dict[str, int]]:
    """Factors of a reshape, by where the running products of both shapes meet.

    >>> regroup((8, 6), (2, 4, 6))[:2]
    ((('f0', 'f1'), ('f2',)), (('f0',), ('f1',), ('f2',)))
    """
    if 0 in shape:
        return ((),) * len(shape), ((),) * len(target), {}
    cuts = sorted(set(_products(shape)) | set(_products(target)))
    chain = all(b % a == 0 for a, b in pairwise(cuts))
    if not chain:
        return _regroup_where_they_meet(shape, target)
    sizes = {f"f{k}": b // a for k, (a, b) in enumerate(pairwise(cuts))}
    return _between(shape, cuts), _between(target, cuts), sizes


def _products(shape: tuple[int, ...]) -> list[int]:
    products = [1]
    for size in shape:
        products.append(products[-1] * size)
    return products


def _between(shape: tuple[int, ...], cuts: list[int]) -> Dims:
    dims: list[Dim] = []
    edges = _products(shape)
    for low, high in pairwise(edges):
        inside = [k for k, cut in enumerate(cuts[:-1]) if low <= cut < high]
        dims.append(tuple(f"f{k}" for k in inside))
    return tuple(dims)


def _regroup_where_they_meet(
    shape: tuple[int, ...], target: tuple[int, ...]
) -> tuple[Dims, Dims, dict[str, int]]:
    """Shapes like (6, 4) -> (4, 6): only dims between common products keep their names."""
    common = sorted(set(_products(shape)) & set(_products(target)))
    sizes = {f"f{k}": b // a for k, (a, b) in enumerate(pairwise(common))}

    def dims(of: tuple[int, ...]) -> Dims:
        edges = _products(of)
        out: list[Dim] = []
        for low, high in pairwise(edges):
            exact = low in common and high in common and low != high
            out.append((f"f{common.index(low)}",) if exact else ())
        return tuple(out)

    kept = {factor for side in (dims(shape), dims(target)) for dim in side for factor in dim}
    return dims(shape), dims(target), {k: v for k, v in sizes.items() if k in kept}
