"""Is a row of the op table true? Found out by running the op in parts.

Every claim of a row is tried on a sample: splits of each factor (and of two at once), in unequal
parts where the chips do not divide it, of all stretches of one together, partial sums through
linear inputs, other partial results through `moves` and `passes`, the expansion.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ops.calls import Sample, execute
from ops.parts import NOISE, beside, combined, compare, has_parts, parts_of, terms
from supernode.ir import HostType, Op, TensorType, Type, Value, map_values
from supernode.ops import Formula, Row, Split
from supernode.ops.formula import shape_of
from supernode.partition.cuts import layout_of, with_stretches
from supernode.plan import Layout, Mesh, cut, cut_axis, piece_size

KINDS = ("sum", "mean", "max", "min", "norm2")
MESHES = (Mesh((("a", 2),)), Mesh((("a", 3),)), Mesh((("a", 2), ("b", 2))))


class Refuted(AssertionError):
    """A claim of a row is false."""


@dataclass(slots=True, kw_only=True)
class Proof:
    """What was shown to be true of a row on one sample."""

    splits: set[str] = field(default_factory=set[str])
    partial: dict[str, str] = field(default_factory=dict[str, str])
    linear: set[tuple[int, ...]] = field(default_factory=set[tuple[int, ...]])
    passes: set[str] = field(default_factory=set[str])
    expands: bool = False

    def __str__(self) -> str:
        shown = {
            "splits": ", ".join(sorted(self.splits)),
            "partial": ", ".join(f"{f}: {kind}" for f, kind in sorted(self.partial.items())),
            "linear": ", ".join(map(str, sorted(self.linear))),
            "passes": ", ".join(sorted(self.passes)),
            "expands": "yes" if self.expands else "",
        }
        return f"Proof({', '.join(f'{k}={{{v}}}' for k, v in shown.items() if v)})"


def prove(row: Row, sample: Sample, meshes: Sequence[Mesh] = MESHES) -> Proof:
    """Tries every claim `row` makes about `sample`, splits on each of `meshes`.

    Raises:
        Refuted: a claim is false; the message names the op, the claim and the first difference.
    """
    proof = Proof()
    formula = row.formula(sample.op)
    _check_form(formula, sample)
    for mesh in meshes:
        for split in _splits(formula, mesh):
            with _claim(sample, f"split {split}"):
                _try_split(row, sample, formula, split, mesh)
            proof.splits |= set(split)
        for split in _splits_inside(formula, mesh):
            with _claim(sample, f"split inside of groups {split}"):
                _try_inside(row, sample, formula, split, mesh)
            proof.splits |= set(split)
        for factor in formula.stretches:
            for split in _stretched(formula, factor, mesh):
                with _claim(sample, f"stretches of {factor} split {split}"):
                    _try_inside(row, sample, formula, split, mesh)
                proof.splits.add(factor)
    for factor in sorted(proof.splits):
        for i in range(len(sample.op.outputs)):
            if kind := formula.kind(factor, i):
                proof.partial[factor] = kind
    for group in row.linear(sample.op):
        for kind in ("sum", "mean"):
            with _claim(sample, f"linear in {group} for parts of a {kind}"):
                if _try_parts(sample, formula, group, kind):
                    proof.linear.add(group)
    tensors = tuple(i for i, v in enumerate(sample.op.inputs) if not isinstance(v.type, HostType))
    for kind in KINDS if row.moves else sorted(row.passes(sample.op)):
        with _claim(sample, f"parts of a {kind} pass through"):
            if _try_parts(sample, formula, tensors, kind):
                proof.passes.add(kind)
    if row.expand is not None:
        with _claim(sample, "expand"):
            proof.expands = bool(expansion(row, sample))
    return proof


class _claim:
    """Turns whatever goes wrong while a claim is tried into its refutation."""

    def __init__(self, sample: Sample, what: str) -> None:
        self.text = f"{sample}: {what}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and not isinstance(error, Refuted):
            raise Refuted(f"{self.text}: {error}") from error


def _check_form(formula: Formula, sample: Sample) -> None:
    """Each dim of each value has an entry, and the sizes of its factors make up its size."""
    op = sample.op
    with _claim(sample, "formula"):
        for value, dims in zip(
            (*op.inputs, *op.outputs), formula.inputs + formula.outputs, strict=True
        ):
            for dim, size in zip(dims, shape_of(value), strict=True):
                product = math.prod(formula.sizes[factor] for factor in dim)
                assert not dim or product == size, f"{dim} of {value.type} has size {product}"
    for value, result in zip(op.outputs, sample.outputs, strict=True):
        _check_type("output", result, value.type)


def _check_type(what: str, got: Any, want: Type) -> None:
    if isinstance(want, TensorType):
        have = TensorType(str(got.dtype).removeprefix("torch."), tuple(got.shape))
        assert have == want, f"{what} is {have}, expected {want}"


# Splits


def _splits(formula: Formula, mesh: Mesh) -> Iterator[Split]:
    """Every factor over all axes; on two axes also every two factors."""
    sizes = [mesh.axis_size(axis) for axis, _ in mesh.axes]
    axes = tuple(axis for axis, _ in mesh.axes)
    free = sorted(filter(formula.splittable, claimed(formula)))
    for factor in free:
        if _has_parts_for(formula.sizes[factor], math.prod(sizes)):
            yield {factor: _cuts(formula.sizes[factor], math.prod(sizes), axes)}
    if len(axes) == 2:
        for pair in itertools.permutations(free, 2):
            lengths = [formula.sizes[factor] for factor in pair]
            if all(map(_has_parts_for, lengths, sizes)):
                each = zip(pair, lengths, sizes, axes, strict=True)
                yield {factor: _cuts(length, n, (axis,)) for factor, length, n, axis in each}


def claimed(formula: Formula) -> set[str]:
    """The factors that can be split, as the formula says."""
    named = {factor for dims in formula.inputs + formula.outputs for dim in dims for factor in dim}
    return named - formula.whole - formula.inside - set(formula.stretches)


def _splits_inside(formula: Formula, mesh: Mesh) -> Iterator[Split]:
    """Every factor that stands behind another in some dim, over one axis."""
    for factor in sorted(claimed(formula)) if len(mesh.axes) == 1 else ():
        length = formula.sizes[factor]
        if not formula.splittable(factor) and _has_parts_for(length, mesh.size):
            yield {factor: _cuts(length, mesh.size, (mesh.axes[0][0],))}


def _stretched(formula: Formula, factor: str, mesh: Mesh) -> Iterator[Split]:
    """All axes in every stretch of a factor, if each stretch has parts for them."""
    chips, lengths = mesh.size, stretch_lengths(formula, factor)
    if _has_parts_for(unit := math.gcd(*lengths), chips):
        units = unit if unit % chips else 0
        words = tuple(cut(axis, lengths, units) for axis, _ in mesh.axes)
        yield with_stretches(formula, {factor: words})


def stretch_lengths(formula: Formula, factor: str) -> tuple[int, ...]:
    """How long the stretches of a factor are, with what lies between them."""
    size, starts = formula.sizes[factor], formula.stretches[factor]
    ends = {0, size, *starts.values(), *(at + formula.sizes[s] for s, at in starts.items())}
    return tuple(b - a for a, b in itertools.pairwise(sorted(ends)))


def _has_parts_for(length: int, chips: int) -> bool:
    return length % chips == 0 or length > chips


def _cuts(length: int, chips: int, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Equal parts where they come out, else parts of unequal numbers of elements."""
    return tuple(cut(axis, units=length if length % chips else 0) for axis in axes)


def _try_split(row: Row, sample: Sample, formula: Formula, split: Split, mesh: Mesh) -> None:
    op = sample.op
    ins = [_layout(dims, split) for dims in formula.inputs]
    outs = [_layout(dims, split) for dims in formula.outputs]
    held: dict[int, Layout] = {}
    for value, layout in zip(op.inputs, ins, strict=True):
        if held.setdefault(value.id, layout) != layout:
            return  # one value would be needed in two layouts: the partition refuses that
    parts: list[tuple[Any, ...]] = []
    for rank in range(mesh.size):
        local = _local_op(row, op, split, held, outs, mesh, rank)
        pieces = [
            _piece(x, value, layout, mesh, rank)
            for x, value, layout in zip(sample.inputs, op.inputs, ins, strict=True)
        ]
        results = execute(local, pieces, mesh, mesh.coordinates(rank))
        for result, value in zip(results, local.outputs, strict=True):
            _check_type("local output", result, value.type)
        parts.append(results)
    for i, want in enumerate(sample.outputs):
        pieces = [results[i] for results in parts]
        got = _joined(pieces, formula, i, split, mesh)
        if all(formula.kind(factor, i) in ("sum", "mean") for factor in split):
            got, want = beside(got, pieces), beside(want, pieces)
            compare(sample, got, want, NOISE * terms(formula))
        else:
            compare(sample, got, want, terms(formula))


def _try_inside(row: Row, sample: Sample, formula: Formula, split: Split, mesh: Mesh) -> None:
    """A split of one factor inside of groups, or of one with all its stretches."""
    op, factor = sample.op, next(iter(split))
    ins, outs = (
        [Layout(layout_of(dims, split, formula.sizes)) for dims in side]
        for side in (formula.inputs, formula.outputs)
    )
    held: dict[int, Layout] = {}
    for value, layout in zip(op.inputs, ins, strict=True):
        if held.setdefault(value.id, layout) != layout:
            return
    parts: list[tuple[Any, ...]] = []
    for rank in range(mesh.size):
        local = _local_op(row, op, split, held, outs, mesh, rank)
        pieces = [
            _boxes_of(x, value, layout, mesh, rank)
            for x, value, layout in zip(sample.inputs, op.inputs, ins, strict=True)
        ]
        results = execute(local, pieces, mesh, mesh.coordinates(rank))
        for result, value in zip(results, local.outputs, strict=True):
            _check_type("local output", result, value.type)
        parts.append(results)
    for i, (want, layout) in enumerate(zip(sample.outputs, outs, strict=True)):
        made = [part[i] for part in parts]
        kind = formula.kind(factor, i)
        if kind is None:
            got = torch.empty_like(want)
            for rank, result in enumerate(made):
                for there, here in layout.boxes(tuple(want.shape), mesh, rank):
                    got[there] = result[here]
        else:
            sizes = [
                piece_size(split[factor], formula.sizes[factor], mesh, mesh.coordinates(rank))
                for rank in range(mesh.size)
            ]
            got = combined(made, kind, sizes)
        if kind in ("sum", "mean"):
            got, want = beside(got, made), beside(want, made)
        compare(sample, got, want, (NOISE if kind else 1) * terms(formula))


def _boxes_of(x: Any, value: Value, layout: Layout, mesh: Mesh, rank: int) -> Any:
    if not isinstance(value.type, TensorType):
        return x
    piece = x.new_empty(layout.local_shape(value.type.shape, mesh, rank))
    for there, here in layout.boxes(value.type.shape, mesh, rank):
        piece[here] = x[there]
    return piece


def _layout(dims: Sequence[tuple[str, ...]], split: Split) -> Layout:
    return Layout(tuple(split.get(dim[0], ()) if dim else () for dim in dims))


def _local_op(
    row: Row,
    op: Op,
    split: Split,
    held: Mapping[int, Layout],
    outs: list[Layout],
    mesh: Mesh,
    rank: int,
) -> Op:
    def local(value: Value, layout: Layout) -> Value:
        if not isinstance(value.type, TensorType):
            return value
        shape = layout.local_shape(value.type.shape, mesh, rank)
        return Value(value.id, TensorType(value.type.dtype, shape))

    inputs = {value.id: local(value, held[value.id]) for value in op.inputs}
    outputs = tuple(local(v, layout) for v, layout in zip(op.outputs, outs, strict=True))
    args = map_values(op.args, inputs)
    assert isinstance(args, tuple)
    kwargs = tuple((key, map_values(arg, inputs)) for key, arg in op.kwargs)
    mapped = replace(op, args=args, kwargs=kwargs, outputs=outputs)
    return row.local(mapped, split, tuple(value.type for value in outputs))


def _piece(x: Any, value: Value, layout: Layout, mesh: Mesh, rank: int) -> Any:
    if not isinstance(value.type, TensorType):
        return x
    return x[layout.slices(value.type.shape, mesh, rank)].contiguous()


def _joined(
    pieces: list[Tensor], formula: Formula, output: int, split: Split, mesh: Mesh
) -> Tensor:
    """The pieces of all ranks, combined along the last axis first."""
    for axis, size in reversed(mesh.axes):
        factor, cuts = next(
            (factor, cuts) for factor, cuts in split.items() if axis in map(cut_axis, cuts)
        )
        groups = [pieces[i : i + size] for i in range(0, len(pieces), size)]
        kind = formula.kind(factor, output)
        if kind is not None:
            through = cuts[: [cut_axis(each) for each in cuts].index(axis) + 1]
            shares = [
                piece_size(through, formula.sizes[factor], mesh, mesh.coordinates(rank))
                for rank in range(0, mesh.size, mesh.stride(axis))
            ]
            pieces = [
                combined(group, kind, shares[i * size : (i + 1) * size])
                for i, group in enumerate(groups)
            ]
        else:
            dims = formula.outputs[output]
            at = next(i for i, dim in enumerate(dims) if dim[:1] == (factor,))
            pieces = [torch.cat(group, at) for group in groups]
    (whole,) = pieces
    return whole


# Partial results


def _try_parts(sample: Sample, formula: Formula, group: Sequence[int], kind: str) -> bool:
    """Whether partial results of `kind` in the inputs of `group` could be tried, and held."""
    op = sample.op
    inside = {op.inputs[i].id for i in group}
    if not group or any(v.id in inside for i, v in enumerate(op.inputs) if i not in group):
        return False
    wholes = list(sample.inputs)
    if not all(has_parts(wholes[i], kind) for i in group):
        return False
    parts: dict[int, tuple[Tensor, Tensor]] = {}
    for i in group:
        if kind == "norm2":
            wholes[i] = wholes[i].abs()
        parts[i] = parts.get(i) or parts_of(wholes[i], kind, seed=op.inputs[i].id)
    ran = [
        execute(op, [parts[i][k] if i in group else x for i, x in enumerate(wholes)])
        for k in range(2)
    ]
    want = execute(op, wholes)
    if not all(bool(x.isfinite().all()) for x in (*want, *ran[0], *ran[1])):
        return False  # parts of an infinity are not numbers
    for *pair, whole in zip(*ran, want, strict=True):
        got, true = beside(combined(pair, kind), pair), beside(whole, pair)
        compare(sample, got, true, NOISE * terms(formula))
    return True


# Expansions


def expansion(row: Row, sample: Sample) -> list[Sample]:
    """The steps of the expansion as samples, run one by one; none where it declines.

    Raises:
        AssertionError: they give something else than the op does.
    """
    assert row.expand is not None
    length = terms(row.formula(sample.op))
    numbers = itertools.count(1000)
    steps = row.expand(sample.op, lambda type_: Value(next(numbers), type_))
    known = {v.id: x for v, x in zip(sample.op.inputs, sample.inputs, strict=True)}
    ran: list[Sample] = []
    for step in steps or []:
        inputs = tuple(known[value.id] for value in step.inputs)
        outputs = execute(step, inputs)
        for value, result in zip(step.outputs, outputs, strict=True):
            _check_type(f"{step.name} in the expansion", result, value.type)
            known[value.id] = result
        ran.append(Sample(op=step, inputs=inputs, outputs=outputs))
    for value, want in zip(sample.op.outputs, sample.outputs, strict=True) if ran else ():
        compare(sample, known[value.id], want, NOISE * length)
    return ran
