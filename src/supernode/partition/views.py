"""Views of weights, made where they are read rather than kept from forward to backward."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from supernode.ir import CALL, Block, NewValues, Op, Program, Value, renamed
from supernode.ops import is_view
from supernode.partition.fuse import trimmed, without_dead_ops
from supernode.partition.update_order import Label

Chain = tuple[int, tuple[Op, ...]]
"""An input of a block, and the views that lead from it to an output."""


def views_at_readers(
    program: Program, labels: list[Label], bases: Collection[int]
) -> tuple[Program, list[Label]]:
    """`program`, each view of an input in `bases` (by id) made anew in every unit that reads it.

    What a block gives out as a view of such an input, its callers make themselves.
    """
    return _Sinker(program, labels, bases).sunk()


class _Sinker:
    def __init__(self, program: Program, labels: list[Label], bases: Collection[int]) -> None:
        self.program, self.labels = program, labels
        self.bases = set(bases)
        self.new = NewValues.of(program.main)
        self.chains = {block.name: _chains(block) for block in program.blocks}
        self.views: dict[int, Op] = {}
        self.ops: list[Op] = []
        self.now: list[Label] = []
        self.made: dict[int, Value] = {}
        self.unit: Label = None

    def sunk(self) -> tuple[Program, list[Label]]:
        main = self.program.main
        for op, label in zip(main.ops, self.labels, strict=True):
            if label is not None and label != self.unit:
                self.unit, self.made = label, {}
            if self._is_base(op):
                self.views[op.outputs[0].id] = op
                continue
            stands = {value.id: self._value(value, op) for value in op.inputs}
            now = renamed(op, stands)
            self._write(self._without_views(op, now) if op.name == CALL else now)
        last = main.ops[-1] if main.ops else None
        outputs = tuple(
            value if last is None else self._value(value, last) for value in main.outputs
        )
        sunk = replace(main, ops=tuple(self.ops), outputs=outputs)
        return self._trimmed(replace(self.program, main=sunk))

    def _trimmed(self, program: Program) -> tuple[Program, list[Label]]:
        labels = {id(op): label for op, label in zip(self.ops, self.now, strict=True)}
        live = without_dead_ops(program.main)
        kept = [labels[id(op)] for op in live.ops]
        return trimmed(replace(program, main=live)), kept

    def _write(self, op: Op) -> None:
        self.ops.append(op)
        self.now.append(self.unit)

    def _is_base(self, op: Op) -> bool:
        return len(op.outputs) == len(op.inputs) == 1 and is_view(op) and self._known(op.inputs[0])

    def _known(self, value: Value) -> bool:
        return value.id in self.bases or value.id in self.views

    def _value(self, value: Value, reader: Op) -> Value:
        """What a reader reads: for a view one that is made in its unit."""
        if value.id not in self.views:
            return value
        if value.id not in self.made:
            view = self.views[value.id]
            source = self._value(view.inputs[0], reader)
            (out,) = self.new.like(view.outputs)
            site = replace(view.site, phase=reader.site.phase)
            self._write(
                replace(renamed(view, {view.inputs[0].id: source}), outputs=(out,), site=site)
            )
            self.made[value.id] = out
        return self.made[value.id]

    def _without_views(self, op: Op, now: Op) -> Op:
        """The call `now`, results that are views of what it was given not taken from it."""
        outputs = list(op.outputs)
        for i, (source, chain) in self.chains[op.block].items():
            if not self._known(op.inputs[source]):
                continue
            value = op.inputs[source]
            for at, view in enumerate(chain):
                last = at == len(chain) - 1
                (out,) = op.outputs[i : i + 1] if last else self.new.like(view.outputs)
                mapping = {view.inputs[0].id: value}
                self.views[out.id] = replace(renamed(view, mapping), outputs=(out,))
                value = out
            (outputs[i],) = self.new.like((op.outputs[i],))
        return replace(now, outputs=tuple(outputs))


def _chains(block: Block) -> Mapping[int, Chain]:
    """The outputs of a block that are views of an input, by their place."""
    place = {value.id: i for i, value in enumerate(block.inputs)}
    leading: dict[int, Chain] = {value.id: (i, ()) for i, value in enumerate(block.inputs)}
    for op in block.ops:
        if len(op.outputs) == len(op.inputs) == 1 and is_view(op) and op.inputs[0].id in leading:
            source, chain = leading[op.inputs[0].id]
            leading[op.outputs[0].id] = (source, (*chain, op))
    return {
        i: leading[value.id]
        for i, value in enumerate(block.outputs)
        if value.id in leading and value.id not in place
    }
