from typing import Any

from . import jit as jit

driver: Any
