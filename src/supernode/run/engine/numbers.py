"""Which tensors of state are numbers for the host: they live where the code runs, not on the chip.

An optimizer counts its steps in tensors without dims and asks for their values. On a chip with
memory of its own each such question would wait until the chip has done all that it was given.
"""

from collections.abc import Iterator, Mapping

from supernode.ir import CALL, Block, HostType, Op, Program, Value

_ASK = "aten._local_scalar_dense"
_ARITHMETIC = frozenset(
    f"aten.{name}.{kind}" for name in ("add", "sub", "mul", "div") for kind in ("Tensor", "Scalar")
)

Uses = Mapping[int, list[Op]]


def host_numbers(program: Program) -> frozenset[int]:
    """The inputs, by position, that are state or buffers without dims of which a step wants only
    numbers, by arithmetic with numbers, and perhaps a new value for the same input."""
    followed = _Followed(program)
    found: set[int] = set()
    for position, (port, value) in enumerate(zip(program.inputs, program.main.inputs, strict=True)):
        if (
            port.role not in ("state", "buffer")
            or isinstance(value.type, HostType)
            or value.tensor.shape
        ):
            continue
        reached = followed.outputs(program.main, value)
        if reached is not None and all(program.updates[each] == position for each in reached):
            found.add(position)
    return frozenset(found)


class _Followed:
    """Where values without dims go."""

    def __init__(self, program: Program) -> None:
        self._bodies = {block.name: block for block in program.blocks}
        self._uses: dict[str, Uses] = {}
        self._known: dict[tuple[str, int], frozenset[int] | None] = {}

    def outputs(self, block: Block, value: Value) -> frozenset[int] | None:
        """The outputs of `block` that are made of `value` by arithmetic, or None if anything else
        is done with it than to ask for numbers."""
        key = block.name, value.id
        if key not in self._known:
            self._known[key] = self._follow(block, value)
        return self._known[key]

    def _follow(self, block: Block, value: Value) -> frozenset[int] | None:
        found = {at for at, each in enumerate(block.outputs) if each.id == value.id}
        for op in self._uses_of(block).get(value.id, ()):
            for after in self._results(op, value):
                reached = None if after is None else self.outputs(block, after)
                if reached is None:
                    return None
                found |= reached
        return frozenset(found)

    def _results(self, op: Op, value: Value) -> Iterator[Value | None]:
        """What an op makes of the value; None where the chip needs it."""
        if op.name == _ASK:
            return
        if op.name == CALL:
            body = self._bodies[op.block]
            for given, inner in zip(op.inputs, body.inputs, strict=True):
                if given.id == value.id:
                    reached = self.outputs(body, inner)
                    yield from (None,) if reached is None else (op.outputs[at] for at in reached)
        else:
            alone = all(
                each.id == value.id or isinstance(each.type, HostType) for each in op.inputs
            )
            yield op.outputs[0] if op.name in _ARITHMETIC and alone else None

    def _uses_of(self, block: Block) -> Uses:
        if block.name not in self._uses:
            uses: dict[int, list[Op]] = {}
            for op in block.ops:
                for given in {each.id for each in op.inputs}:
                    uses.setdefault(given, []).append(op)
            self._uses[block.name] = uses
        return self._uses[block.name]
