"""Where each op of a program writes: over a dying temporary, into a destination, or anew.

Only elementwise ops overwrite, only their first operand and only of the result's own type: then
the result has the strides it would have had, and every later op sees the same bits.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from supernode.ir import CALL, STORE, Block, HostType, Program, Value
from supernode.plan.aliases import Aliases
from supernode.plan.elementwise import WITH_OUT, first_operand, is_aten
from supernode.plan.liveness import Rewrite


def rewrites(program: Program, destinations: tuple[int, ...]) -> dict[str, Rewrite]:
    """For each block, by name, where its ops write; `destinations` are outputs of main."""
    callees = {block.name: Aliases(block, {}).summary() for block in program.blocks}
    inputs = frozenset(value.id for value in program.main.inputs)
    main = _Planner(program.main, Aliases(program.main, callees, inputs), frozenset())
    aimed = main.aimed(destinations)
    result: dict[str, Rewrite] = {}
    handed: dict[str, frozenset[int]] = {}
    for block in program.blocks:
        calls = [at for at, op in enumerate(program.main.ops) if op.block == block.name]
        handed[block.name] = main.hands_out(calls, len(block.outputs), aimed)
        given, dense = main.gives_up(calls, block), main.hands_in_order(calls, block)
        planner = _Planner(block, Aliases(block, {}, dense), given)
        result[block.name] = planner.rewrite(tuple(sorted(handed[block.name])), {})
    result[program.main.name] = main.rewrite(destinations, handed)
    return result


def destinations(program: Program) -> tuple[int, ...]:
    """The outputs that may be given a destination: next values of inputs, if not the input itself.

    A buffer that a step leaves alone is its own next value and needs no second place.
    """
    main = program.main
    return tuple(
        position
        for position, (value, source) in enumerate(zip(main.outputs, program.updates, strict=True))
        if source is not None
        and main.inputs[source].id != value.id
        and not isinstance(value.type, HostType)
    )


class _Planner:
    """Decides for one block; `given` are the inputs that no caller needs again."""

    def __init__(self, block: Block, aliases: Aliases, given: frozenset[int]) -> None:
        self._block = block
        self._aliases = aliases
        self._given = given
        self._producer = {value.id: at for at, op in enumerate(block.ops) for value in op.outputs}
        used = [value.id for op in block.ops for value in op.inputs]
        self._uses = Counter([*used, *(value.id for value in block.outputs)])

    def aimed(self, destinations: tuple[int, ...]) -> dict[int, int]:
        """The values that may be born in the destination of an output.

        A second reader would see the strides of the destination, so they must be those of the op.
        """
        outputs = self._block.outputs
        return {
            outputs[p].id: p
            for p in destinations
            if self._uses[outputs[p].id] == 1
            or outputs[p].id in self._aliases.contiguous
            or self._is_stored(outputs[p])
        }

    def _is_stored(self, value: Value) -> bool:
        at = self._producer.get(value.id)
        return at is not None and self._block.ops[at].name == STORE

    def gives_up(self, calls: list[int], callee: Block) -> frozenset[int]:
        """The inputs of a block that no caller needs again."""
        return self._inputs(
            calls, callee, lambda at, value: self._aliases.may_overwrite(at, value, self._given)
        )

    def hands_in_order(self, calls: list[int], callee: Block) -> frozenset[int]:
        """The inputs of a block that every caller gives contiguous."""
        return self._inputs(calls, callee, lambda _, value: value.id in self._aliases.contiguous)

    def _inputs(
        self, calls: list[int], callee: Block, holds: Callable[[int, Value], bool]
    ) -> frozenset[int]:
        operands = [(at, self._block.ops[at].inputs) for at in calls]
        return frozenset(
            value.id
            for i, value in enumerate(callee.inputs)
            if calls and all(holds(at, values[i]) for at, values in operands)
        )

    def hands_out(self, calls: list[int], count: int, aimed: Mapping[int, int]) -> frozenset[int]:
        """The outputs of a block that go straight to a destination in every call."""
        results = [self._block.ops[at].outputs for at in calls]
        return frozenset(
            p for p in range(count) if calls and all(values[p].id in aimed for values in results)
        )

    def rewrite(
        self, destinations: tuple[int, ...], handed: Mapping[str, frozenset[int]]
    ) -> Rewrite:
        """Where each op writes when the outputs at `destinations` have a place to go."""
        aimed = self.aimed(destinations)
        inplace = {at for at in range(len(self._block.ops)) if self._overwrites(at)}
        into: dict[int, int] = {}
        calls: dict[int, tuple[int | None, ...]] = {}
        for value, position in aimed.items():
            at = self._producer.get(value)
            if at is None:
                continue
            op = self._block.ops[at]
            if op.name == CALL:
                straight = [out.id for p, out in enumerate(op.outputs) if p in handed[op.block]]
                calls[at] = tuple(
                    aimed[out.id] if out.id in straight else None for out in op.outputs
                )
            elif op.name == STORE:
                into[at] = position
            elif (head := self._first_writer(at, inplace)) is not None:
                inplace.discard(head)
                into[head] = position
        reached = {*into.values(), *(p for places in calls.values() for p in places)}
        copied = tuple(p for p in destinations if p not in reached)
        return Rewrite(inplace=frozenset(inplace), into=into, calls=calls, copied=copied)

    def _overwrites(self, at: int) -> bool:
        first = first_operand(self._block.ops[at])
        return first is not None and self._aliases.may_overwrite(at, first, self._given)

    def _first_writer(self, at: int, inplace: set[int]) -> int | None:
        """The earliest op of the chain of overwritings that ends at `at` and can take `out=`."""
        chain = [at]
        while chain[-1] in inplace:
            operand = self._block.ops[chain[-1]].inputs[0]
            made = self._producer.get(operand.id)
            if made is None or self._uses[operand.id] > 1:
                break
            chain.append(made)
        return next((at for at in reversed(chain) if is_aten(self._block.ops[at], WITH_OUT)), None)
