from collections.abc import Callable
from typing import Any

uint8: Any
uint16: Any
float16: Any

def builtin(fn: Callable[..., Any]) -> Callable[..., Any]: ...
