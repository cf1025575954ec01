"""Which classes of dims each axis splits, and how each input of the step is kept."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from supernode.errors import LayoutError
from supernode.ir import HostType, Port, Program, Value
from supernode.partition.classes import Classes, Part, expert_classes, inside_experts
from supernode.partition.halves import inner_axes
from supernode.partition.line import Axis, mesh_of
from supernode.partition.reader import pointed
from supernode.plan import Layout, Mesh, beside, fits, is_contiguous, piece_size, whole_axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """`axes` are those of the mesh, some as halves. `split[axis][class]` is the rank of preference
    (0 first) where an op has several such classes; `units[class]` in how many units a class is cut
    that its axes do not divide; `homes[i]` is the layout of input `i`, None for a host number;
    `reasons[i]` why. `experts` is the axis that splits experts, if any; `inside` are those along
    which all chips have the same rows. Where the first is one of these its chips take the rows of
    their experts without asking.
    """

    axes: tuple[Axis, ...]
    split: dict[str, dict[Part, int]]
    units: dict[Part, int]
    homes: tuple[Layout | None, ...]
    reasons: tuple[str, ...]
    experts: str | None
    inside: frozenset[str]


def assign(program: Program, classes: Classes, axes: tuple[Axis, ...], line: str) -> Assignment:
    """The assignment that the schemes of `axes` ask for.

    Raises:
        LayoutError: there is nothing to split, or a chip would get no part of a dim.
    """
    inner = inner_axes(program, classes, axes, line)
    axes = inner.axes
    split: dict[str, dict[Part, int]] = {axis.name: {} for axis in axes}
    for axis in axes:
        chosen = split[axis.name]
        if axis.scheme.inner:
            apart = inside_experts(classes) if axis.scheme.experts else set[Part]()
            _take(chosen, [part for part in inner.split[axis.name] if part not in apart], 0)
        if axis.scheme.batch:
            _take(chosen, _batch(program, classes, axis, line), 0)
        if axis.scheme.experts:
            _take(chosen, _experts(classes, axis, line), 1)
        if axis.scheme.tokens:
            preference = 1 if axis.scheme.inner else 0
            _take(chosen, _tokens(program, classes, axis, line), preference)
    units = _units(program, classes, axes, split, line)
    mesh = mesh_of(axes)
    homes: list[Layout | None] = []
    reasons: list[str] = []
    for port, value in zip(program.inputs, program.main.inputs, strict=True):
        try:
            home, reason = _home(port, value, classes, axes, split, units, mesh, line)
        except LayoutError as error:
            raise pointed(error, program, classes, split, value) from None
        homes.append(home)
        reasons.append(reason)
    return Assignment(
        axes=axes,
        split=split,
        units=units,
        homes=tuple(homes),
        reasons=tuple(reasons),
        experts=next((axis.name for axis in axes if axis.scheme.experts), None),
        inside=frozenset(
            axis.name for axis in axes if axis.scheme.inner and expert_classes(classes)
        ),
    )


def _take(chosen: dict[Part, int], places: list[Part], preference: int) -> None:
    for place in places:
        chosen.setdefault(place, preference)


def _batch(program: Program, classes: Classes, axis: Axis, line: str) -> list[Part]:
    found = batch_classes(program, classes)
    if not found:
        raise LayoutError(
            f"{axis.name}={axis.size} does not divide the batch: no argument that the step reads "
            "has a first dim of more than one",
            asked=f"layout {line}",
            fix="give the step a larger batch, or split the weights (tp)",
        )
    return found


def batch_classes(program: Program, classes: Classes) -> list[Part]:
    """The classes of the first dims of the arguments, but of those that have no batch.

    A mask `[tokens, tokens]` or a weight for each of the vocabulary starts with what is another
    dim of an argument before it, or a dim of a weight.
    """
    firsts: dict[Part, None] = {}
    found: dict[Part, None] = {}
    others = {
        classes.of("main", value, dim)
        for port, value in zip(program.inputs, program.main.inputs, strict=True)
        for dim in range(len(value.tensor.shape) if port.role == "param" else 0)
    }
    for value in _arguments(program):
        first, *rest = (classes.of("main", value, dim) for dim in range(len(value.tensor.shape)))
        if value.tensor.shape[0] > 1:
            firsts[first] = None
            if first not in others:
                found[first] = None
        others.update(place for place in rest if place not in found)
    return list(found or firsts)


def _tokens(program: Program, classes: Classes, axis: Axis, line: str) -> list[Part]:
    found = _token_classes(program, classes)
    if not found and not axis.scheme.inner:
        raise LayoutError(
            f"{axis.name}={axis.size} does not divide the tokens: no argument that the step reads "
            "has a second dim of more than one",
            asked=f"layout {line}",
            fix="split the batch (dp, fsdp) or the weights (tp)",
        )
    return found


def _experts(classes: Classes, axis: Axis, line: str) -> list[Part]:
    found = expert_classes(classes)
    if not found:
        why = "; ".join(classes.routing.refuted.values()) or "no token is sorted by expert"
        raise LayoutError(
            f"{axis.name}={axis.size} finds no experts that tokens could be sent to: {why}",
            asked=f"layout {line}",
            fix="split the batch (dp, fsdp) or the weights (tp)",
        )
    return found


def _token_classes(program: Program, classes: Classes) -> list[Part]:
    """The classes of the second dims of the arguments."""
    found: dict[Part, None] = {}
    for value in _arguments(program):
        if len(value.tensor.shape) > 1 and value.tensor.shape[1] > 1:
            found[classes.of("main", value, 1)] = None
    return list(found)


def _arguments(program: Program) -> Iterator[Value]:
    """The arguments that have dims and that an op reads; others stay whole."""
    read = {value.id for op in program.main.ops for value in op.inputs}
    for port, value in zip(program.inputs, program.main.inputs, strict=True):
        tensor = port.role == "arg" and not isinstance(value.type, HostType)
        if tensor and value.tensor.shape and value.id in read:
            yield value


def _units(
    program: Program,
    classes: Classes,
    axes: tuple[Axis, ...],
    split: dict[str, dict[Part, int]],
    line: str,
) -> dict[Part, int]:
    """In how many units each class is cut that the axes which split it do not divide together."""
    parts: dict[Part, int] = defaultdict(lambda: 1)
    for axis in axes:
        for place in split[axis.name]:
            parts[place] *= axis.size
    units: dict[Part, int] = {}
    for port, value in zip(program.inputs, program.main.inputs, strict=True):
        if port.role not in ("param", "arg", "buffer") or isinstance(value.type, HostType):
            continue
        dims = [
            (dim, size, place)
            for dim, size in enumerate(value.type.shape)
            for place in _places(classes, value, dim, port, parts)
        ]
        for dim, size, place in dims:
            # No op splits a dim that divides by nothing; it is still kept in parts.
            count, divisor = parts.get(place, 1), classes.divisor(place) or size
            if divisor % count:
                if divisor < count:
                    splitting = tuple(axis for axis in axes if place in split[axis.name])
                    what = f"dim {dim} of {port.name} ({value.type}), size {size}"
                    error = _misfit(splitting, what, size, divisor, line)
                    raise pointed(error, program, classes, split, value)
                units[place] = divisor
    return units


def _places(
    classes: Classes, value: Value, dim: int, port: Port, parts: Mapping[Part, int]
) -> Iterator[Part]:
    """The class of a dim, and those that are split in groups or stretches of a weight."""
    for groups, part in classes.parts("main", value, dim).items():
        inside = classes.stretches(part, parts.__contains__) or ((1, part),)
        if groups == 1 or port.role == "param":
            yield from dict.fromkeys(place for _, place in inside)


def _misfit(axes: tuple[Axis, ...], what: str, size: int, divisor: int, line: str) -> LayoutError:
    """Why these axes together can't split a dim, which `what` tells, in so many units."""
    names = dict.fromkeys(whole_axis(axis.name) for axis in axes)
    asked = f"{'*'.join(names)}={math.prod(axis.size for axis in axes)}"
    unit = "" if divisor == size else f", which splits in {divisor} equal units"
    parts = "chips" if not any(axis.scheme.time for axis in axes) else "microbatches"
    return LayoutError(
        f"{asked} leaves {parts} without a part of {what}{unit}",
        asked=f"layout {line}",
        fix=f"use sizes whose product is at most {divisor}",
    )


def _home(
    port: Port,
    value: Value,
    classes: Classes,
    axes: tuple[Axis, ...],
    split: dict[str, dict[Part, int]],
    units: dict[Part, int],
    mesh: Mesh,
    line: str,
) -> tuple[Layout | None, str]:
    if isinstance(value.type, HostType):
        return None, "a host number, the same on every chip"
    shape = value.type.shape
    dims: list[tuple[str, ...]] = [()] * len(shape)
    why: list[str] = []
    for axis in axes:
        wanted = [
            (way[0], dim, way[1])
            for dim in range(len(shape))
            for groups, part in classes.parts("main", value, dim).items()
            if (way := classes.way(part, groups, axis.name, split[axis.name], units))
            and _may_split(port, axis, way[0])
            and (port.role != "arg" or is_contiguous(way[1]))
        ]
        if wanted:
            _, dim, each = min(wanted, key=lambda each: each[:2])
            dims[dim] = (*dims[dim], each)
            why.append(f"{axis.name} splits dim {dim} ({axis.scheme.summary})")
    for axis in axes:
        if port.role in axis.scheme.keeps:
            stored = _stored(port, shape, dims, axis, mesh, line)
            if stored is not None:
                dim, each = stored
                dims[dim] = (*dims[dim], each)
                why.append(f"{axis.name} keeps it in parts along dim {dim} ({axis.scheme.summary})")
    return Layout(tuple(dims)), "; ".join(why) or "whole on every chip: no axis splits its dims"


NEAR = 1.1
"""So much larger than the smallest may the largest part be, for a dim that nothing else cuts."""


def _fewest(uneven: tuple[float, int, int, str]) -> tuple[int, float, int]:
    share, cuts, dim, _ = uneven
    return cuts, share, dim


def _may_split(port: Port, axis: Axis, preference: int) -> bool:
    """Arguments arrive split over batch and tokens, weights over inner dims and experts, all at
    one time.

    What a step remembers of its batch (keys and values of earlier tokens) lies where the batch is.
    """
    scheme = axis.scheme
    weights = scheme.inner or (scheme.experts and preference == 1)
    return not scheme.time and (port.role in ("arg", "buffer") or weights)


def _stored(
    port: Port,
    shape: tuple[int, ...],
    dims: list[tuple[str, ...]],
    axis: Axis,
    mesh: Mesh,
    line: str,
) -> tuple[int, str] | None:
    """The dim to cut, and how: an uncut one that divides, else one that is cut already, else of
    those with about the smallest largest part (`NEAR`) one that nothing cuts; None for what is too
    small. What two axes cut unevenly few ops take as it lies."""
    for dim in sorted(range(len(shape)), key=lambda dim: (len(dims[dim]), dim)):
        each = beside(dims[dim], axis.name)
        if fits((*dims[dim], each), shape[dim], mesh):
            return dim, each
    uneven: list[tuple[float, int, int, str]] = []
    for dim, size in enumerate(shape):
        each = beside(dims[dim], axis.name, size)
        if fits((*dims[dim], each), size, mesh):
            now, then = (
                piece_size(cuts, size, mesh, {}) for cuts in (dims[dim], (*dims[dim], each))
            )
            uneven.append((then / now, len(dims[dim]), dim, each))
    if uneven:
        least = min(uneven)[0]
        _, _, dim, each = min((each for each in uneven if each[0] <= NEAR * least), key=_fewest)
        return dim, each
    if len(shape) < 2 or math.prod(Layout(tuple(dims)).local_shape(shape, mesh)) < axis.size:
        return None
    raise LayoutError(
        f"{axis.name}={axis.size} is more than each dim of {port.name} ({list(shape)})",
        asked=f"layout {line}",
        fix="choose a size that one of its dims reaches, and put the rest in dp",
    )
