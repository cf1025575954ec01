"""Which step of a block is the last that may read a value."""

from ..tile.ops import CHEAP, VIEWS, Block, Op, Region, Value

FOREVER = 1 << 30


def is_lazy(op: Op) -> bool:
    """Whether the op is computed by its readers: element-wise tile ops, views and tile loads."""
    if not op.results or not op.result.type.is_tile:
        return False
    return op.is_elementwise or op.name in VIEWS or op.name in ("load", "poison")


def is_heavy(op: Op, heavy_operand: bool) -> bool:
    """Whether computing the op's elements a second time costs more than to store and load them."""
    if op.name in VIEWS or op.name == "poison":
        return heavy_operand
    if op.name in ("srem", "urem", "sdiv", "udiv"):
        return heavy_operand or op.operands[1].op is None or not _is_constant(op.operands[1])
    return heavy_operand or op.name not in CHEAP


def _is_constant(value: Value) -> bool:
    while value.op is not None and value.op.name in ("splat", "broadcast"):
        value = value.op.operands[0]
    return value.op is not None and value.op.name == "const"


class Lifetimes:
    """Uses of every value of a kernel, and positions of every op in its block."""

    def __init__(self, region: Region) -> None:
        self.uses: dict[Value, list[Op]] = {}
        self.position: dict[Op, int] = {}
        self._home: dict[Op, Block] = {}
        self._value_home: dict[Value, Block] = {}
        self._parent: dict[Block, Op | None] = {}
        self._last: dict[Value, int] = {}
        self._walk(region, None)

    def _walk(self, region: Region, parent: Op | None) -> None:
        for block in region.blocks:
            self._parent[block] = parent
            for value in block.args:
                self._value_home[value] = block
            for position, op in enumerate(block.ops):
                self.position[op] = position
                self._home[op] = block
                for value in op.results:
                    self._value_home[value] = block
                for value in op.operands:
                    self.uses.setdefault(value, []).append(op)
                for inner in op.regions:
                    self._walk(inner, op)

    def use_count(self, value: Value) -> int:
        """How often ops read it."""
        return len(self.uses.get(value, ()))

    def last(self, value: Value) -> int:
        """Position, in the value's own block, of the last op whose code may read it; −1 if none,
        `FOREVER` if another block does."""
        known = self._last.get(value)
        if known is not None:
            return known
        self._last[value] = -1
        last = -1
        for use in self.uses.get(value, ()):
            at = self._ancestor(use, self._value_home[value])
            if at is None:
                last = FOREVER
                break
            last = max(last, self.position[at])
            if at is use and is_lazy(use):
                last = max(last, self.last(use.result))
        self._last[value] = last
        return last

    def home(self, value: Value) -> Block:
        """The block that defines it."""
        return self._value_home[value]

    def stand_in(self, value: Value) -> Value:
        """A value nothing reads, of the same type and home."""
        other = Value(value.type, None, 0, f"{value.name}h")
        self._value_home[other] = self._value_home[value]
        return other

    def _ancestor(self, op: Op, block: Block) -> Op | None:
        """The op of `block` that is `op` or holds it."""
        at: Op | None = op
        while at is not None and self._home[at] is not block:
            at = self._parent[self._home[at]]
        return at

    def free_values(self, op: Op) -> list[Value]:
        """Values from outside that the regions of `op` read."""
        inside: set[Value] = set()
        found: dict[Value, None] = {}

        def visit(region: Region) -> None:
            for block in region.blocks:
                inside.update(block.args)
                for inner in block.ops:
                    for value in inner.operands:
                        if value not in inside:
                            found[value] = None
                    inside.update(inner.results)
                    for nested in inner.regions:
                        visit(nested)

        for region in op.regions:
            visit(region)
        return [value for value in found if value not in inside]
