"""Host numbers: `host.*` ops as Python expressions, in double precision as torch's own scalars."""

import math
import operator
from collections.abc import Callable

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}


def power(base: float, exponent: float) -> float:
    """A real power, nan where there is none, so that a branch not taken does no harm."""
    result = base**exponent
    return math.nan if isinstance(result, complex) else result


FUNCTIONS: dict[str, Callable[..., object]] = {
    "neg": operator.neg,
    "abs": abs,
    "pow": power,
    "min": min,
    "max": max,
    "int": int,
    "float": float,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "cos": math.cos,
    "sin": math.sin,
    "tanh": math.tanh,
}
