"""Fail when a file or a function has grown too long to be read at once.

A file over 400 lines is printed, for someone to ask why; over 600 lines it fails unless it stands
in `LONG_FILES` with its reason. A function over 60 lines fails.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "tools", "bench", "examples")
FILE_ASKS, FILE_FAILS, FUNCTION_FAILS = 400, 600, 60

# path from the root -> why it may be longer than FILE_FAILS
LONG_FILES: dict[str, str] = {}


def main(root: Path = ROOT) -> int:
    """The exit status: 1 if a file or function is too long, else 0."""
    failures = 0
    for path in sorted(p for folder in FOLDERS for p in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > FILE_FAILS and name not in LONG_FILES:
            print(f"{name}: {lines} lines, the limit is {FILE_FAILS}: split it")
            failures += 1
        elif lines > FILE_ASKS:
            print(f"{name}: {lines} lines, {LONG_FILES.get(name, 'could it be two files?')}")
        for function, line, length in _long_functions(text):
            print(f"{name}:{line}: {function} has {length} lines, the limit is {FUNCTION_FAILS}")
            failures += 1
    return int(failures > 0)


def _long_functions(text: str) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_FAILS:
                yield node.name, node.lineno, length


if __name__ == "__main__":
    sys.exit(main())
