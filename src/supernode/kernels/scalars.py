"""What the integer ops of TTIR give for known numbers."""

from collections.abc import Callable
from typing import Any

from supernode.kernels.ttir import Line

Number = int | float | None
"""What a scalar is; None if only a run can tell."""

_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "addi": lambda a, b: a + b,
    "subi": lambda a, b: a - b,
    "muli": lambda a, b: a * b,
    "divsi": lambda a, b: a // b if (a < 0) == (b < 0) else -(-a // b),
    "divui": lambda a, b: a // b,
    "ceildivsi": lambda a, b: -(-a // b),
    "floordivsi": lambda a, b: a // b,
    "remsi": lambda a, b: a % b if (a < 0) == (b < 0) else -(-a % b),
    "remui": lambda a, b: a % b,
    "minsi": min,
    "maxsi": max,
    "minui": min,
    "maxui": max,
    "andi": lambda a, b: a & b,
    "ori": lambda a, b: a | b,
    "xori": lambda a, b: a ^ b,
    "shli": lambda a, b: a << b,
    "shrsi": lambda a, b: a >> b,
    "shrui": lambda a, b: a >> b,
}
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
_SAME = frozenset({"extsi", "extui", "trunci", "index_cast", "bitcast"})


def scalar(op: Line, short: str, operands: list[Number]) -> Number:
    """What an op of `arith` gives, where that is one known number."""
    if "tensor<" in op.types:
        return None
    if short == "constant":
        return _constant(op.text.strip())
    if any(operand is None for operand in operands):
        return None
    known: list[Any] = operands
    if short == "cmpi":
        return _COMPARED[op.text.split(",")[0].strip().lstrip("su")](known[0], known[1])
    if short == "select":
        return known[1] if known[0] else known[2]
    if short in _SAME:
        return known[0]
    return _INTEGERS[short](known[0], known[1]) if short in _INTEGERS else None


def _constant(text: str) -> Number:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return None
