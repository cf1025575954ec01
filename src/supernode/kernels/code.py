"""Text of generated Python: names, arguments and the objects that the text refers to."""

import keyword
import re

import torch

from supernode.ir import Arg, DType, Value

FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")


class Names:
    """The objects generated code refers to, by the global name each is bound to."""

    def __init__(self) -> None:
        self.bound: dict[str, object] = {}

    def bind(self, symbol: str, thing: object) -> str:
        """`symbol`, now a name of `thing` in the generated module."""
        known = self.bound.setdefault(symbol, thing)
        assert known is thing or known == thing, f"two meanings of {symbol}"
        return symbol

    def arg(self, arg: Arg) -> str:
        """The text of a value, constant or tuple of them."""
        match arg:
            case Value():
                return value_name(arg)
            case DType():
                return self.bind(arg.name, getattr(torch, arg.name))
            case tuple():
                items = [self.arg(item) for item in arg]
                return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
            case str():
                return self._text(arg)
            case float() if arg != arg or arg in (float("inf"), float("-inf")):
                return f'float("{arg}")'
            case _:
                return repr(arg)

    def _text(self, text: str) -> str:
        short = text.removeprefix("torch.")
        if short in FORMATS or short == "strided":
            return self.bind(short, getattr(torch, short))
        return repr(text)

    def call(self, symbol: str, args: tuple[Arg, ...], kwargs: tuple[tuple[str, Arg], ...]) -> str:
        """The text of a call."""
        items = [self.arg(arg) for arg in args]
        items += [f"{name}={self.arg(arg)}" for name, arg in kwargs]
        return f"{symbol}({', '.join(items)})"


def value_name(value: Value) -> str:
    """The local variable that holds `value`."""
    return f"v{value.id}"


def identifier(text: str) -> str:
    """`text` as part of a Python name."""
    name = re.sub(r"\W", "_", text)
    return f"{name}_" if keyword.iskeyword(name) else name
