"""Which rows each chip may sort for itself: the tokens that a mixture of experts routes.

Such a model sorts its (token, expert) pairs by expert, takes the token's row for each, multiplies
the rows in groups by the matrices of their experts and puts them back in the order of the tokens.
A sort needs its dim whole, so all tokens would have to come together. But if all that happens to
the sorted rows is alike for each of them until they are put back, a chip may as well sort the
pairs of its own tokens: indices then point into its own rows, and how many rows an expert has is a
partial sum.

The proof follows the rows from the sort through all blocks. A sort whose order is used in any
other way is refuted, and its rows stay whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from supernode.ir import CALL, Block, Op, Program, Value
from supernode.ops import Formula, Row, row
from supernode.ops.formula import shape_of
from supernode.partition.routed_ops import INVERTED, Routed, inverted, routed_formula

At = tuple[str, int]
"""Block name, and an op's position or a value's id in it."""
Kind = Literal["rows", "keys", "sources", "places", "counts"]
"""Sorted rows; sorted keys; for each sorted row which row it was; for each row its place among the
sorted; how many rows each key has, or the running sum of that."""

SORTS = ("aten.sort", "aten.sort.stable")
_COPIES = ("aten.clone", "aten.detach", "aten.alias", "aten._to_copy", "aten.view")
_READS = ("aten.index.Tensor", "aten.index_select")
_WRITES = ("aten.index_put", "aten.index_add")
_SUMS = ("aten.cumsum", "aten._to_copy", "aten.clone")
_FILLS = ("zeros", "ones", "empty", "full")
_BLANKS = tuple(f"aten.{name}" for fill in _FILLS for name in (fill, f"new_{fill}", f"{fill}_like"))


@dataclass(frozen=True, slots=True)
class Order:
    """One run of the sort at `origin`, of `size` rows."""

    origin: At
    run: int
    size: int


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a value: `dim` lies in the order; an index has been divided by `every`."""

    kind: Kind
    order: Order
    dim: int = 0
    every: int = 1


@dataclass(slots=True)
class Routing:
    """What the partition must know of rows that each chip sorts for itself.

    `pinned` gives the dim of each value that stays cut as the sort has cut it, `sorted_rows` those
    of them that are rows, `keys` those that say by what each is sorted; `counts` holds values that
    stay partial sums. `formulas` and `rows` replace those of the op table. `keyed` are ops that
    look up, or add up, something of each expert for its rows. `ends[v]` is the value of the same
    block that says where the groups of the rows `v` end. `refuted` says for sorts why their order
    matters.
    """

    formulas: dict[At, Formula] = field(default_factory=dict[At, Formula])
    rows: dict[At, Row] = field(default_factory=dict[At, Row])
    pinned: dict[At, int] = field(default_factory=dict[At, int])
    sorted_rows: set[At] = field(default_factory=set[At])
    keys: set[At] = field(default_factory=set[At])
    counts: set[At] = field(default_factory=set[At])
    keyed: set[At] = field(default_factory=set[At])
    ends: dict[At, Value] = field(default_factory=dict[At, Value])
    refuted: dict[At, str] = field(default_factory=dict[At, str])

    def moved(self, block: str, places: Mapping[int, int]) -> "Routing":
        """The same, where ops of `block` stand elsewhere: `places` has the new place of each that
        is still there, by the old."""

        def still(old: At) -> bool:
            return old[0] != block or old[1] in places

        def now(old: At) -> At:
            return (block, places[old[1]]) if old[0] == block else old

        return replace(
            self,
            formulas={now(at): formula for at, formula in self.formulas.items() if still(at)},
            rows={now(at): rule for at, rule in self.rows.items() if still(at)},
            keyed={now(at) for at in self.keyed if still(at)},
        )


def find_routing(program: Program) -> Routing:
    """The sorts of `program` that every chip may do for itself, with all that follows from them."""
    refuted: dict[At, str] = {}
    while True:
        proof = _Proof(program, refuted)
        try:
            proof.main()
            return proof.result()
        except _RefutedError as error:
            refuted[error.order.origin] = error.why


def moved_rows(program: Program) -> dict[str, set[int]]:
    """By block, the ids of what ops give that sort rows, move them by that order, or multiply them
    in groups."""
    found: dict[str, set[int]] = {}
    blocks = {block.name: block for block in program.all_blocks()}
    for name, position in find_routing(program).formulas:
        found.setdefault(name, set()).update(v.id for v in blocks[name].ops[position].outputs)
    return found


class _RefutedError(Exception):
    def __init__(self, order: Order, why: str) -> None:
        self.order, self.why = order, why
        super().__init__(why)


class _Proof:
    """One walk over the program; it ends early where an order is refuted."""

    def __init__(self, program: Program, refuted: Mapping[At, str]) -> None:
        self.program = program
        self.refuted = refuted
        self.known: dict[At, Fact] = {}
        self.routed: dict[At, tuple[Routed, Order, int]] = {}
        self.ends: dict[tuple[str, Order], Value] = {}
        self.every: dict[At, int] = {}
        self.runs = 0
        self.sorting = {
            block.name for block in program.blocks if any(op.name in SORTS for op in block.ops)
        }

    def main(self) -> None:
        """Walks over all ops of the step.

        Raises:
            _RefutedError: the order of some rows matters.
        """
        walk = _Walk(self, self.program.main, {})
        walk.ops()
        for value in self.program.main.outputs:
            fact = walk.facts.get(value.id)
            if fact is not None and fact.kind != "counts":
                raise _RefutedError(fact.order, "sorted rows are a result of the step")

    def result(self) -> Routing:
        """All that the partition must know."""
        found = Routing(refuted=dict(self.refuted))
        for at, fact in self.known.items():
            if fact.kind == "counts":
                found.counts.add(at)
                continue
            found.pinned[at] = fact.dim
            if fact.kind == "keys":
                found.keys.add(at)
            if fact.kind in ("rows", "keys"):
                found.sorted_rows.add(at)
                if (ends := self.ends.get((at[0], fact.order))) is not None:
                    found.ends[at] = ends
        blocks = {block.name: block for block in self.program.all_blocks()}
        for at, (what, order, every) in self.routed.items():
            op = blocks[at[0]].ops[at[1]]
            groups = self.every.get(order.origin, 1)
            found.formulas[at] = routed_formula(op, what, order.size, groups, every)
            if what.endswith("keys"):
                found.keyed.add(at)
            if what == "invert" and op.name != INVERTED:
                found.rows[at] = replace(row(op), local=inverted)
        return found


class _Walk:
    """One run of one block."""

    def __init__(self, proof: _Proof, block: Block, facts: dict[int, Fact]) -> None:
        self.proof = proof
        self.block = block
        self.facts = facts
        self._makers = {value.id: op for op in block.ops for value in op.outputs}
        self._local: dict[Order, Order] = {}
        for value in block.inputs:
            if value.id in facts:
                self._note(value)

    def ops(self) -> None:
        """Follows the rows through all ops."""
        for position, op in enumerate(self.block.ops):
            at = self.block.name, position
            if op.name == CALL:
                self._call(op)
            elif any(value.id in self.facts for value in op.inputs):
                self._op(at, op)
            elif op.name in SORTS:
                self._sort(at, op)
            for value in op.outputs:
                if value.id in self.facts:
                    self._note(value)

    def _call(self, op: Op) -> None:
        callee = self.proof.program.block(op.block)
        given = {
            formal.id: self.facts[actual.id]
            for formal, actual in zip(callee.inputs, op.inputs, strict=True)
            if actual.id in self.facts
        }
        if not given and op.block not in self.proof.sorting:
            return
        walk = _Walk(self.proof, callee, given)
        walk.ops()
        for formal, actual in zip(callee.outputs, op.outputs, strict=True):
            if formal.id in walk.facts:
                self.facts[actual.id] = walk.facts[formal.id]

    def _here(self, order: Order) -> Order:
        """The order under a name that is the same in every run of the block."""
        name = Order((self.block.name, -1), len(self._local), order.size)
        return self._local.setdefault(order, name)

    def _note(self, value: Value) -> None:
        fact = self.facts[value.id]
        seen = replace(fact, order=self._here(fact.order))
        if self.proof.known.setdefault((self.block.name, value.id), seen) != seen:
            raise _RefutedError(fact.order, f"calls of {self.block.name} differ")

    def _sort(self, at: At, op: Op) -> None:
        x = op.inputs[0]
        down = op.arg(2, "descending", False) if op.name == "aten.sort" else op.kwarg("descending")
        if len(shape_of(x)) != 1 or x.tensor.numel < 2 or down or at in self.proof.refuted:
            return
        self.proof.runs += 1
        order = Order(at, self.proof.runs, x.tensor.numel)
        self._mark(at, "sort", order)
        keys, sources = op.outputs
        self.facts[keys.id] = Fact("keys", order)
        self.facts[sources.id] = Fact("sources", order)

    def _mark(self, at: At, what: Routed, order: Order, every: int = 1) -> None:
        if every > 1 and self.proof.every.setdefault(order.origin, every) != every:
            raise _RefutedError(order, "its rows belong to rows of two kinds")
        known = self.proof.routed.setdefault(at, (what, order, every))
        if self.proof.every.get(known[1].origin) != self.proof.every.get(order.origin):
            raise _RefutedError(order, f"calls of {self.block.name} differ")

    # ---- one op ----

    def _op(self, at: At, op: Op) -> None:
        facts = {i: self.facts[v.id] for i, v in enumerate(op.inputs) if v.id in self.facts}
        order = next(iter(facts.values())).order
        if any(fact.order != order for fact in facts.values()):
            raise _RefutedError(order, f"{op.name} joins rows that were sorted apart ({op.site})")
        kinds = {fact.kind for fact in facts.values()}
        index = facts.get(1)
        if op.name == "aten._grouped_mm":
            fine = self._grouped(at, op, facts, order)
        elif index and index.kind in ("sources", "places") and op.name in _READS:
            fine = self._read(at, op, facts, index)
        elif index and index.kind in ("sources", "places") and op.name in _WRITES:
            fine = self._write(at, op, facts, index)
        elif index and index.kind == "keys" and op.name in (*_READS, *_WRITES):
            fine = self._keyed(at, op, facts, order)
        elif op.name in _BLANKS:
            fine = True
        elif kinds == {"counts"}:
            fine = op.name not in _SUMS or self._give(op, facts[0])
        elif len(kinds) == 1 and op.name in _COPIES and _keeps_shape(op):
            fine = self._give(op, facts[0])
        elif op.name == "aten.floor_divide" and kinds == {"sources"}:
            fine = self._divide(op, facts[0])
        elif op.name == INVERTED and kinds == {"sources"}:
            fine = self._inverted(at, op, facts[0])
        elif op.name == "aten.histc" and kinds == {"keys"}:
            fine = self._give(op, Fact("counts", order))
        else:
            fine = kinds <= {"rows", "keys"} and self._alike(op, facts, order)
        if not fine:
            raise _RefutedError(order, f"{op.name} uses the order of the rows ({op.site})")

    def _give(self, op: Op, fact: Fact) -> bool:
        self.facts[op.outputs[0].id] = fact
        return True

    def _divide(self, op: Op, fact: Fact) -> bool:
        by = op.args[1]
        if not isinstance(by, int) or by < 1 or fact.order.size % by or fact.every > 1:
            return False
        return self._give(op, replace(fact, every=by))

    def _inverted(self, at: At, op: Op, fact: Fact) -> bool:
        """What an op became that was spread before, over microbatches."""
        self._mark(at, "invert", fact.order)
        return fact.every == 1 and self._give(op, replace(fact, kind="places"))

    def _read(self, at: At, op: Op, facts: Mapping[int, Fact], index: Fact) -> bool:
        order = index.order
        if index.kind == "places":
            self._mark(at, "read places", order)
            return _is_rows(facts.get(0), 0)
        self._mark(at, "read sources", order, index.every)
        fits = shape_of(op.inputs[0])[:1] == (order.size // index.every,)
        return 0 not in facts and fits and self._give(op, Fact("rows", order))

    def _write(self, at: At, op: Op, facts: Mapping[int, Fact], index: Fact) -> bool:
        order = index.order
        onto, what = shape_of(op.inputs[0]), shape_of(op.inputs[2])
        if 0 in facts or what[:1] != (order.size,) or onto[:1] != (order.size // index.every,):
            return False
        if index.kind == "places":
            self._mark(at, "write places", order)
            return 2 not in facts and self._is_blank(op, 0) and self._give(op, Fact("rows", order))
        made = self._makers.get(op.inputs[2].id)
        if made is not None and made.name == "aten.arange" and made.args == (order.size,):
            self._mark(at, "invert", order)
            return (
                index.every == 1 and self._is_blank(op, 0) and self._give(op, Fact("places", order))
            )
        self._mark(at, "write sources", order, index.every)
        adds = op.name == "aten.index_add" or op.arg(3, "accumulate", False) is True
        return _is_rows(facts.get(2), 0) and (adds or index.every == 1)

    def _keyed(self, at: At, op: Op, facts: Mapping[int, Fact], order: Order) -> bool:
        """`table[keys]`, and its reverse that adds rows up by key."""
        self._mark(at, "read keys" if op.name in _READS else "write keys", order)
        where = op.args[1]
        first = (
            where == 0 if isinstance(where, int) else isinstance(where, tuple) and len(where) == 1
        )
        if 0 in facts or not first:
            return False
        if op.name in _READS:
            return self._give(op, Fact("rows", order))
        adds = op.name == "aten.index_add" or op.arg(3, "accumulate", False) is True
        return adds and self._is_blank(op, 0) and _is_rows(facts.get(2), 0)

    def _grouped(self, at: At, op: Op, facts: Mapping[int, Fact], order: Order) -> bool:
        ranks = tuple(len(shape_of(value)) for value in op.inputs[:2])
        left, right, ends = (facts.get(i) for i in range(3))
        if ends is None or ends.kind != "counts":
            return False
        self._mark(at, "grouped", order)
        self.proof.ends.setdefault((self.block.name, self._here(order)), op.inputs[2])
        if ranks == (2, 2):
            return _is_rows(left, 1) and _is_rows(right, 0)
        if ranks == (2, 3):
            return _is_rows(left, 0) and right is None and self._give(op, Fact("rows", order))
        return False

    def _alike(self, op: Op, facts: Mapping[int, Fact], order: Order) -> bool:
        """Whether an op does the same to each row, or combines all of them."""
        formula = row(op).formula(op)
        dim, *others = {formula.inputs[i][fact.dim] for i, fact in facts.items()}
        if others or len(dim) != 1 or not formula.splittable(dim[0]):
            return False
        for i, dims in enumerate(formula.inputs):
            if (
                any(dim[0] in each for each in dims)
                and i not in facts
                and not self._is_blank(op, i)
            ):
                return False
        for value, dims in zip(op.outputs, formula.outputs, strict=True):
            if dim in dims:
                self.facts[value.id] = Fact("rows", order, dims.index(dim))
            elif any(dim[0] in each for each in dims):
                return False
        return True

    def _is_blank(self, op: Op, position: int) -> bool:
        """Whether an operand is the same in each of its elements."""
        made = self._makers.get(op.inputs[position].id)
        return made is not None and made.name in _BLANKS


def _is_rows(fact: Fact | None, dim: int) -> bool:
    return fact is not None and fact.kind in ("rows", "keys") and fact.dim == dim


def _keeps_shape(op: Op) -> bool:
    return shape_of(op.inputs[0]) == shape_of(op.outputs[0])
