"""Pages of documentation as blocks that can be run, and their outputs as goldens.

The line that opens a block says what it is:

- ```` ```python ````: run, in the namespace of its page;
- ```` ```text output ````: what the python block before it printed;
- ```` ```console ````: `$ supernode …` commands, run here, each with what it prints;
- `varies` behind either: run and shown, but not the same each time, so only its presence counts.

Anything else is only shown.
"""

import contextlib
import io
import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supernode.cli.main import call

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
OWN_TESTS = ("add-a-machine.md", "add-an-op.md")
"""Pages that the tests of a room run."""

_BLOCK = re.compile(r"^```(\w+)([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block; `text` starts at `start` of the page, on line `line`."""

    language: str
    flags: tuple[str, ...]
    text: str
    start: int
    line: int


def pages() -> list[Path]:
    """The README and every page under docs, but for what other tests run."""
    found = sorted(DOCS.rglob("*.md"))
    return [README, *(page for page in found if page.name not in OWN_TESTS)]


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(
            language=match[1],
            flags=tuple(match[2].split()),
            text=match[3],
            start=match.start(3),
            line=text.count("\n", 0, match.start(3)) + 1,
        )
        for match in _BLOCK.finditer(text)
    ]


def current(text: str, name: str) -> str:
    """The page `text` with every block run and its outputs as they are now."""
    edits: list[tuple[Block, str]] = []
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for block in blocks(text):
        if block.language == "python":
            printed = _run(block, name, namespace)
        elif block.language == "text" and "output" in block.flags:
            assert printed, f"{name}, line {block.line}: nothing was printed"
            edits.append((block, printed))
        elif block.language == "console":
            edits.append((block, "".join(_answered(block))))
    for block, new in reversed(edits):
        if "varies" not in block.flags:
            text = text[: block.start] + new + text[block.start + len(block.text) :]
    return text


def _run(block: Block, name: str, namespace: dict[str, Any]) -> str:
    printed = io.StringIO()
    # Its place on the page, so that a traceback leads there, and Triton finds what it compiles.
    lines = ("\n" * (block.line - 1) + block.text).splitlines(keepends=True)
    linecache.cache[name] = (len(block.text), None, lines, name)
    code = compile("\n" * (block.line - 1) + block.text, name, "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return _trimmed(printed.getvalue())


def _answered(block: Block) -> Iterator[str]:
    for command, _ in commands(block):
        program, *arguments = command.split()
        assert program == "supernode", f"a console block runs supernode, not {program}"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert call(arguments) == 0, command
        yield f"$ {command}\n{_trimmed(printed.getvalue())}"


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows."""
    found = [(match[1], match[2]) for match in _COMMAND.finditer(block.text)]
    assert "".join(f"$ {command}\n{shown}" for command, shown in found) == block.text
    return found


def links(text: str) -> list[str]:
    """Where the page leads, but for the web."""
    outside = _BLOCK.sub("", text)
    targets = re.findall(r"\]\(([^)\s]+)\)", outside)
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def anchors(text: str) -> set[str]:
    """The names of a page's headings in links."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def _trimmed(text: str) -> str:
    return "".join(line.rstrip() + "\n" for line in text.rstrip().splitlines())
