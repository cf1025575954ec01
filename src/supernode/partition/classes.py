"""Classes of dims: which dims of which values are the same thing, by the formulas of the ops.

The residual stream's last dim is one class through all layers, an MLP's hidden units another, the
batch a third. A layout assigns classes to mesh axes, so no module or op needs to be named.

A dim may be made of several things: `(b s)` of 8 sequences is the batch as a whole and, inside
each of its 8 groups, the tokens. Dims that some op takes for one and the same share all of these;
a reshape tells what they are made of. What a split or a concatenation tells is which classes lie in
stretches of another: query, key and value in the output of their fused projection.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from fractions import Fraction
from typing import TypeVar

from supernode.ir import CALL, RECEIVE, SEND, Block, HostType, Op, Program, Value, filled
from supernode.ops import Dim, Formula, row
from supernode.partition.routing import find_routing
from supernode.plan import cut

Place = tuple[str, int, int]
"""Block name, value id, dim."""
Part = tuple[Place, int]
"""The part of a dim inside each of so many groups of it; the dim as a whole is in one group."""
Node = TypeVar("Node", Place, Part)


class Classes:
    """Union-find over the dims of every value of a Program, and over their parts.

    `routing` says which rows each chip sorts for itself.
    """

    def __init__(self, program: Program) -> None:
        self._same: dict[Place, Place] = {}
        self._parts: dict[Place, dict[int, Part]] = {}
        self._inside: dict[Place, dict[tuple[int, int], Place]] = {}
        self._class: dict[Part, Part] = {}
        self._divisor: dict[Part, int] = {}
        self._stretches: dict[Part, dict[tuple[Fraction, Fraction], Part]] = {}
        self._program = program
        self.routing = find_routing(program)
        self._formulas: dict[tuple[str, int], Formula] = {}
        blocks = {block.name: block for block in program.blocks}
        for block in program.all_blocks():
            self._join_block(block, blocks)
        for output, source in zip(program.main.outputs, program.updates, strict=True):
            if source is not None:
                self._join_values("main", output, "main", program.main.inputs[source])

    def of(self, block: str, value: Value, dim: int) -> Part:
        """The class of a dim as a whole."""
        return self.parts(block, value, dim)[1]

    def parts(self, block: str, value: Value, dim: int) -> Mapping[int, Part]:
        """The classes a dim is made of, by the number of groups they are inside of."""
        return self._parts_of(_root(self._same, (block, value.id, dim)))

    def _parts_of(self, place: Place) -> dict[int, Part]:
        known: dict[int, Part] = {1: (place, 1)} | self._parts.get(place, {})
        found = {groups: _root(self._class, part) for groups, part in known.items()}
        for (groups, _), inside in self._inside.get(place, {}).items():
            for further, part in self._parts_of(_root(self._same, inside)).items():
                found.setdefault(groups * further, part)
        return found

    def outermost(self, block: str, value: Value, dim: int) -> Iterator[Mapping[int, Part]]:
        """The dims that a dim is made of and begins with, as `parts`: of `(h e)` those of h."""
        place = _root(self._same, (block, value.id, dim))
        for (groups, _), inside in self._inside.get(place, {}).items():
            if groups == 1:
                yield self._parts_of(_root(self._same, inside))

    def divisor(self, part: Part) -> int:
        """The greatest number of equal parts every dim of this class can be cut in; 0 if no op
        reads one."""
        return self._divisor.get(_root(self._class, part), 0)

    def stretches(
        self, part: Part, wanted: Callable[[Part], bool]
    ) -> tuple[tuple[Fraction, Part], ...] | None:
        """A part as stretches of wanted classes, each with its share, in order: all of it, if its
        own class is wanted; None if some stretch is of none."""
        if wanted(part):
            return ((Fraction(1), part),)
        if part not in self._stretches:
            return None
        found: list[tuple[Fraction, Part]] = []
        at = Fraction(0)
        for (start, stop), inside in sorted(self._stretches[part].items()):
            if start == at and (inner := self.stretches(_root(self._class, inside), wanted)):
                found += [(share * (stop - start), each) for share, each in inner]
                at = stop
        return tuple(found) if at == 1 else None

    def with_inside(self, parts: set[Part]) -> set[Part]:
        """These classes and all that lie in stretches of them."""
        found: set[Part] = set()
        queue = [*parts]
        while queue:
            part = _root(self._class, queue.pop())
            if part not in found:
                found.add(part)
                queue += self._stretches.get(part, {}).values()
        return found

    def way(
        self,
        part: Part,
        groups: int,
        axis: str,
        chosen: Mapping[Part, int],
        units: Mapping[Part, int],
    ) -> tuple[int, str] | None:
        """How `axis` cuts a part inside of `groups` groups, if it splits the `chosen` classes: the
        preference and the cut. `units[class]` is in how many units a class is cut unevenly."""
        if part in chosen:
            return chosen[part], cut(axis, groups, units.get(part, 0))
        found = self.stretches(part, chosen.__contains__) if groups == 1 else None
        if found is None:
            return None
        counts = {units.get(inside, 0) for _, inside in found}
        if len(counts) > 1:
            return None
        unit = math.lcm(*(share.denominator for share, _ in found))
        within = tuple(int(share * unit) for share, _ in found)
        return max(chosen[inside] for _, inside in found), cut(axis, within, *counts)

    def formula(self, block: str, position: int) -> Formula:
        """The Formula of the op at `position` of `block`."""
        return self._formulas[block, position]

    def grouped(self) -> Iterator[tuple[str, tuple[Value, ...], Formula]]:
        """The products of sorted rows in groups: block, operands and results, formula."""
        blocks = {block.name: block for block in self._program.all_blocks()}
        for (name, position), formula in self.routing.formulas.items():
            if formula.partial:
                op = blocks[name].ops[position]
                yield name, (*op.inputs, *op.outputs), formula

    def of_part(self, main: Block) -> "Classes":
        """The same classes, for a main that has some of the ops, in an order of its own."""
        whole = self._program.main
        before = {v.id: at for at, op in enumerate(whole.ops) for v in op.outputs}
        places = {
            before[v.id]: at
            for at, op in enumerate(main.ops)
            for v in op.outputs[:1]
            if v.id in before
        }
        found = copy(self)
        found.routing = self.routing.moved(main.name, places)
        found._formulas = {key: each for key, each in self._formulas.items() if key[0] != main.name}
        for position, op in enumerate(main.ops):
            if op.name not in (CALL, SEND, RECEIVE) and not is_host(op.name):
                routed = found.routing.formulas.get((main.name, position))
                found._formulas[main.name, position] = routed or row(op).formula(op)
        return found

    def _join_block(self, block: Block, blocks: dict[str, Block]) -> None:
        for position, op in enumerate(block.ops):
            if op.name == CALL:
                callee = blocks[op.block]
                pairs = (*zip(op.inputs, callee.inputs, strict=True),)
                for actual, formal in (*pairs, *zip(op.outputs, callee.outputs, strict=True)):
                    self._join_values(block.name, actual, callee.name, formal)
            elif not is_host(op.name):
                routed = self.routing.formulas.get((block.name, position))
                formula = routed or row(op).formula(op)
                self._formulas[block.name, position] = formula
                self._join_factors(block.name, formula, (*op.inputs, *op.outputs))

    def _join_factors(self, block: str, formula: Formula, values: tuple[Value, ...]) -> None:
        alike: dict[Dim, Place] = {}
        parts: dict[str, Part] = {}
        for value, dims in zip(values, formula.inputs + formula.outputs, strict=True):
            for i, dim in enumerate(dims):
                place, groups = (block, value.id, i), 1
                if dim:
                    self._join(alike.setdefault(dim, place), place)
                for factor in dim:
                    part = self._part(place, groups)
                    self._limit(part, formula.sizes[factor])
                    self._join_parts(parts.setdefault(factor, part), part)
                    groups *= formula.sizes[factor]
        for dim, place in alike.items():
            self._contain(place, dim, formula, alike)
        for factor, starts in formula.stretches.items():
            size = formula.sizes[factor]
            for inside, start in starts.items():
                ends = Fraction(start, size), Fraction(start + formula.sizes[inside], size)
                self._lies_in(parts[factor], ends, parts[inside])

    def _contain(
        self, place: Place, dim: Dim, formula: Formula, alike: Mapping[Dim, Place]
    ) -> None:
        """A dim has the parts of those that it is made of, once they are known."""
        groups, size = 1, math.prod(formula.sizes[factor] for factor in dim)
        for factor in dim:
            alone = alike.get((factor,))
            if alone is not None and formula.sizes[factor] < size:
                self._holds(place, (groups, formula.sizes[factor]), alone)
            groups *= formula.sizes[factor]

    def _holds(self, place: Place, where: tuple[int, int], inside: Place) -> None:
        """A dim holds another, of that size, in each of so many groups."""
        known = self._inside.setdefault(_root(self._same, place), {}).setdefault(where, inside)
        self._join(known, inside)

    def _join_values(self, block: str, a: Value, other: str, b: Value) -> None:
        for dim in range(_rank(a)):
            self._join((block, a.id, dim), (other, b.id, dim))

    def _part(self, place: Place, groups: int) -> Part:
        root = _root(self._same, place)
        return self._parts.setdefault(root, {}).setdefault(groups, (root, groups))

    def _limit(self, part: Part, size: int) -> None:
        root = _root(self._class, part)
        self._divisor[root] = math.gcd(self._divisor.get(root, 0), size)

    def _lies_in(self, part: Part, ends: tuple[Fraction, Fraction], inside: Part) -> None:
        known = self._stretches.setdefault(_root(self._class, part), {})
        self._join_parts(known.setdefault(ends, inside), inside)

    def _join(self, a: Place, b: Place) -> None:
        """The two dims are one and the same, and so are their parts."""
        a, b = _root(self._same, a), _root(self._same, b)
        if a == b:
            return
        theirs = {1: (b, 1)} | self._parts.pop(b, {})
        self._same[b] = a
        for where, inside in self._inside.pop(b, {}).items():
            self._holds(a, where, inside)
        for groups, part in theirs.items():
            self._join_parts(self._part(a, groups), part)

    def _join_parts(self, a: Part, b: Part) -> None:
        a, b = _root(self._class, a), _root(self._class, b)
        if a == b:
            return
        self._class[b] = a
        divisor = math.gcd(self._divisor.get(a, 0), self._divisor.pop(b, 0))
        if divisor:
            self._divisor[a] = divisor
        if b in self._stretches:
            for ends, inside in self._stretches.pop(b).items():
                self._lies_in(a, ends, inside)


def _root(parent: dict[Node, Node], node: Node) -> Node:
    path: list[Node] = []
    while (above := parent.get(node, node)) != node:
        path.append(node)
        node = above
    for seen in path:
        parent[seen] = node
    return node


def is_host(name: str) -> bool:
    """Whether an op works on host numbers, or reads one from a tensor."""
    return name.startswith("host.") or name == "aten._local_scalar_dense"


def expert_classes(classes: Classes) -> list[Part]:
    """The classes of the dims that count experts: of matrices that rows are multiplied with in
    groups, where each chip sorts its own rows."""
    found: dict[Part, None] = {}
    for block, values, formula in classes.grouped():
        for value, dims in zip(values, formula.inputs + formula.outputs, strict=True):
            if len(dims) == 3:
                found[classes.of(block, value, dims.index(("e",)))] = None
    return list(found)


def inside_experts(classes: Classes) -> set[Part]:
    """The classes of the other dims of those matrices."""
    return {
        classes.of(block, value, dim)
        for block, values, formula in classes.grouped()
        for value, dims in zip(values, formula.inputs + formula.outputs, strict=True)
        if len(dims) == 3
        for dim, factors in enumerate(dims)
        if factors != ("e",)
    }


def contractions(program: Program, classes: Classes) -> Iterator[tuple[tuple[Part, ...], int, int]]:
    """Per op that sums a dim away: the classes summed, the output's size, how often it runs.

    Of sorted rows the size is what they are added up to.
    """
    counts = program.counts()
    rows = {block.name: _Rows(block, classes) for block in program.all_blocks()}
    for block, op, formula in _formulas(program, classes):
        summed = tuple(
            part
            for value, dims in zip(op.inputs, formula.inputs, strict=True)
            for i, dim in enumerate(dims)
            if dim and all(formula.kind(dim[0], k) for k in range(len(op.outputs)))
            for part in classes.parts(block, value, i).values()
        )
        if summed:
            yield summed, rows[block].least_bytes(op.outputs[0]), counts.get(block, 1)


class _Rows:
    """How many bytes the parts of sorted rows have where they are fewest: partial sums are carried
    along as far as ops are linear in them."""

    def __init__(self, block: Block, classes: Classes) -> None:
        self._name, self._routing = block.name, classes.routing
        self._readers: dict[int, list[Op]] = {}
        for op in block.ops:
            if op.name == CALL or is_host(op.name):
                continue
            if filled(op, op.outputs[0]) is not None:
                continue
            for value in dict.fromkeys(op.inputs):
                self._readers.setdefault(value.id, []).append(op)
        self._known: dict[int, int] = {}

    def least_bytes(self, value: Value) -> int:
        """Those of a value, which need not be rows."""
        here = value.type.size_bytes
        if (self._name, value.id) not in self._routing.sorted_rows:
            return here
        return min(here, self._behind(value))

    def _behind(self, value: Value) -> int:
        if value.id not in self._known:
            readers = self._readers.get(value.id, [])
            carried = all(self._carries(op, value) for op in readers)
            outs = [out for op in readers for out in op.outputs]
            least = sum(min(out.type.size_bytes, self._behind(out)) for out in outs)
            self._known[value.id] = least if carried and readers else value.type.size_bytes
        return self._known[value.id]

    def _carries(self, op: Op, value: Value) -> bool:
        at = op.inputs.index(value)
        return op.inputs.count(value) == 1 and any(at in group for group in row(op).linear(op))


def read_whole(program: Program, classes: Classes) -> tuple[set[Part], set[Part]]:
    """The classes that some op of the forward phase can't split, and those that it can't but in
    their stretches."""
    found: set[Part] = set()
    stretched: set[Part] = set()
    for block, op, formula in _formulas(program, classes):
        if op.site.phase != "forward":
            continue
        whole = formula.whole if row(op).expand is None else ()
        for at, (value, dims) in enumerate(zip(op.inputs, formula.inputs, strict=True)):
            for i, dim in enumerate(dims):
                if at in formula.unread or value.tensor.shape[i] == 1:
                    continue
                if not dim or dim[0] in whole:
                    found.add(classes.of(block, value, i))
                elif dim[0] in formula.stretches:
                    stretched.add(classes.of(block, value, i))
    return classes.with_inside(found), stretched


def _formulas(program: Program, classes: Classes) -> Iterator[tuple[str, Op, Formula]]:
    """The ops on tensors, with their blocks."""
    for block in program.all_blocks():
        for position, op in enumerate(block.ops):
            if op.name != CALL and not is_host(op.name):
                yield block.name, op, classes.formula(block.name, position)


def _rank(value: Value) -> int:
    return 0 if isinstance(value.type, HostType) else len(value.type.shape)
