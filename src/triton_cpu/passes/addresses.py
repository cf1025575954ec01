"""How tiles of indices and addresses grow from element to element; and so which tiles lie in the
caller's memory as a matrix, row by row, at equal distances."""

from collections.abc import Callable

from ..tile.ops import VIEWS, Op, Value

Steps = tuple[int | None, ...]
"""Per dim: by how much the value grows with the index; None for an amount that is the same
everywhere but not known."""


def is_matrix(pointers: Value) -> bool:
    """Whether the tile of pointers has two dims, its rows point to consecutive elements, and begin
    at equal distances."""
    steps = steps_of(pointers, {})
    return steps is not None and len(steps) == 2 and steps[1] == 1


def changes(value: Value, fixed: frozenset[Value]) -> bool:
    """Whether a value may differ between programs, or between turns of a loop: whether it depends
    on more than constants and `fixed`, a kernel's arguments."""
    pending, seen = [value], set[Value]()
    while pending:
        one = pending.pop()
        if one in seen or one in fixed:
            continue
        seen.add(one)
        if one.op is None or not (one.op.is_elementwise or one.op.name in VIEWS):
            return True
        pending += one.op.operands
    return False


def steps_of(value: Value, known: dict[Value, Steps | None]) -> Steps | None:
    """The steps of a tile of indices or addresses, None of any other; `known` is filled."""
    if value not in known:
        known[value] = _found(value, known)
    return known[value]


def _found(value: Value, known: dict[Value, Steps | None]) -> Steps | None:
    op = value.op
    if not value.type.is_tile:
        return ()
    if op is None:
        return None
    if op.name in ("splat", "const"):
        return (0,) * len(value.type.dims)
    if op.name == "range":
        return (1,)
    rule = _RULES.get(op.name)
    if rule is None:
        return None
    operands = [steps_of(operand, known) for operand in op.operands]
    given = [steps for steps in operands if steps is not None]
    return rule(op, given) if len(given) == len(operands) else None


def _expand(op: Op, operands: list[Steps]) -> Steps:
    axis = int(op.attrs["axis"])
    return (*operands[0][:axis], 0, *operands[0][axis:])


def _broadcast(op: Op, operands: list[Steps]) -> Steps:
    sizes = op.operands[0].type.dims
    return tuple(0 if size == 1 else step for size, step in zip(sizes, operands[0], strict=True))


def _trans(op: Op, operands: list[Steps]) -> Steps:
    return tuple(operands[0][dim] for dim in op.attrs["order"])


def _sum(op: Op, operands: list[Steps]) -> Steps:
    pairs = zip(*operands, strict=True)
    return tuple(None if a is None or b is None else a + b for a, b in pairs)


def _product(op: Op, operands: list[Steps]) -> Steps | None:
    """Only of a tile whose elements are all the same with another one."""
    for steps, other in (operands, operands[::-1]):
        if not any(step != 0 for step in steps):
            return tuple(0 if step == 0 else None for step in other)
    return None


def _sext(op: Op, operands: list[Steps]) -> Steps | None:
    return operands[0] if op.operands[0].type.elem.bits >= 32 else None


_RULES: dict[str, Callable[[Op, list[Steps]], Steps | None]] = {
    "expand": _expand,
    "broadcast": _broadcast,
    "trans": _trans,
    "add": _sum,
    "addptr": _sum,
    "mul": _product,
    "sext": _sext,
}
