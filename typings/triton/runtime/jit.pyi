from collections.abc import Callable
from typing import Any

native_specialize_impl: Callable[..., Any]
