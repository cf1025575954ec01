from typing import Any

backends: dict[str, Any]
