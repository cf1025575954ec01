"""Reads MLIR's generic text form, the one grammar that all Triton versions share.

One op is `%r:2 = "name"(%a, %b)[^successors] <{properties}> ({regions}) {attributes} : (types) ->
types loc(...)`. The reader resolves names to numbers, so that sibling regions may use a name again.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from .ops import UNKNOWN, Location

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|->|[()\[\]{}<>]')
_CLOSE = {"(": ")", "[": "]", "{": "}", "<": ">"}
_RESULTS = re.compile(r"\s*((?:%[\w$.-]+(?::\d+)?(?:, )?)+) = ")
_NAME = re.compile(r'\s*"([\w.]+)"\(')
_LABEL = re.compile(r"\s*(\^\w+)")
_LOCATION = re.compile(r'(#\w+) = loc\((?:"((?:[^"\\]|\\.)*)":(\d+):\d+)?(.*)\)$')
_REFERENCE = re.compile(r"#\w+")


@dataclass(eq=False, slots=True)
class MlirOp:
    """One op as MLIR writes it; operands and results are numbers of values."""

    name: str
    operands: list[int] = field(default_factory=list[int])
    results: list[int] = field(default_factory=list[int])
    result_types: list[str] = field(default_factory=list[str])
    operand_types: list[str] = field(default_factory=list[str])
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])
    successors: list[str] = field(default_factory=list[str])
    regions: "list[list[MlirBlock]]" = field(default_factory=lambda: [])
    location: Location = UNKNOWN


@dataclass(eq=False, slots=True)
class MlirBlock:
    """Label, arguments as (number, type), ops."""

    label: str = ""
    args: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    ops: list[MlirOp] = field(default_factory=list[MlirOp])


def read_module(text: str) -> MlirOp:
    """The module op of `text` (what `module.str()` prints in generic form, locations included)."""
    return _Reader(text).module()


def closing(text: str, start: int) -> int:
    """The index just past the bracket that closes the one at `start`."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        sign = token[0]
        if sign in _CLOSE:
            depth += 1
        elif len(sign) == 1:
            depth -= 1
            if depth == 0:
                return token.end()
    raise ValueError(f"unbalanced brackets: {text[start : start + 80]}")


def split(text: str) -> list[str]:
    """The parts of `text` between its outermost commas."""
    parts: list[str] = []
    depth = start = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|->|[()\[\]{}<>,]', text):
        sign = token[0]
        if sign == "," and depth == 0:
            parts.append(text[start : token.start()].strip())
            start = token.end()
        elif sign in _CLOSE:
            depth += 1
        elif sign in ")]}>":
            depth -= 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def attribute(text: str) -> Any:
    """The Python value of an attribute: int, bool, str, list, dict; else its text."""
    text = text.strip()
    number = re.fullmatch(r"(-?\d+) : \w+", text)
    if number:
        return int(number[1])
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        return _unescape(text[1:-1])
    if text.startswith("array<"):
        _, _, values = text[6:-1].partition(":")
        return [
            value.strip() == "true" if value.strip() in ("true", "false") else int(value)
            for value in values.split(",")
            if value.strip()
        ]
    if text.startswith("["):
        return [attribute(part) for part in split(text[1:-1])]
    if text.startswith("{"):
        return attributes(text[1:-1])
    if text.startswith("@"):
        return text[1:].strip('"')
    return text


def attributes(text: str) -> dict[str, Any]:
    """The dictionary written as `name = value, …`; a bare name is true."""
    found: dict[str, Any] = {}
    for part in split(text):
        name, equals, value = part.partition(" = ")
        found[name.strip().strip('"')] = attribute(value) if equals else True
    return found


def _unescape(text: str) -> str:
    """MLIR writes bytes outside printable ASCII as backslash and two hex digits."""

    def one(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code, 16)) if len(code) == 2 else {"n": "\n", "t": "\t"}.get(code, code)

    return re.sub(r"\\([0-9A-Fa-f]{2}|.)", one, text)


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.position = 0
        self.count = 0
        self.scopes: list[dict[str, int]] = [{}]
        self.locations = self._read_locations()

    def _read_locations(self) -> dict[str, Location]:
        """Aliases `#loc3 = loc("file":line:col)`; one that wraps another means the inner one."""
        direct: dict[str, Location] = {}
        wrapped: dict[str, str] = {}
        for line in self.lines:
            match = _LOCATION.match(line) if line.startswith("#") else None
            if not match:
                continue
            if match[3]:
                direct[match[1]] = Location(match[2], int(match[3]))
            else:
                references = _REFERENCE.findall(re.sub(r'"(?:[^"\\]|\\.)*"', "", match[4]))
                if references:
                    wrapped[match[1]] = references[0]
        for alias in wrapped:
            target = alias
            while target in wrapped:
                target = wrapped[target]
            direct[alias] = direct.get(target, UNKNOWN)
        return direct

    def module(self) -> MlirOp:
        while not self.lines[self.position].lstrip().startswith('"builtin.module"'):
            self.position += 1
        return self._op()

    def _new(self, name: str) -> int:
        known = self.scopes[-1].get(name)
        if known is not None and known < 0:  # used by an earlier block before its definition
            self.scopes[-1][name] = -known
            return -known
        self.count += 1
        self.scopes[-1][name] = self.count
        return self.count

    def _use(self, name: str) -> int:
        for scope in reversed(self.scopes):
            if name in scope:
                return abs(scope[name])
        self.count += 1
        self.scopes[-1][name] = -self.count  # a block that prints later defines it
        return self.count

    def _region(self) -> list[MlirBlock]:
        self.scopes.append({})
        blocks = [MlirBlock()]
        while True:
            line = self.lines[self.position].strip()
            if line.startswith("}"):
                self.scopes.pop()
                return blocks
            if line.startswith("^"):
                block = self._block_header(line)
                if not blocks[-1].ops and not blocks[-1].label:
                    blocks.pop()
                blocks.append(block)
                self.position += 1
            elif not line:
                self.position += 1
            else:
                blocks[-1].ops.append(self._op())

    def _block_header(self, line: str) -> MlirBlock:
        match = _LABEL.match(line)
        assert match, line
        block = MlirBlock(match[1])
        if line[match.end() : match.end() + 1] == "(":
            end = closing(line, match.end())
            for part in split(line[match.end() + 1 : end - 1]):
                name, _, kind = part.partition(": ")
                block.args.append((self._new(name), kind.split(" loc(")[0].strip()))
        return block

    def _op(self) -> MlirOp:
        line = self.lines[self.position]
        names, at = _result_names(line)
        match = _NAME.match(line, at)
        assert match, line
        op = MlirOp(match[1])
        at = closing(line, match.end() - 1)
        op.operands = [self._use(name) for name in split(line[match.end() : at - 1])]
        if line[at : at + 1] == "[":
            end = closing(line, at)
            op.successors = split(line[at + 1 : end - 1])
            at = end
        if line.startswith(" <{", at):
            end = closing(line, at + 1)
            op.attrs.update(attributes(line[at + 3 : end - 2]))
            at = end
        if line.startswith(" ({", at):
            line, at = self._regions(op)
        if line.startswith(" {", at):
            end = closing(line, at + 1)
            op.attrs.update(attributes(line[at + 2 : end - 1]))
            at = end
        self._signature(op, line, at)
        op.results = [self._new(name) for name in names]
        self.position += 1
        return op

    def _regions(self, op: MlirOp) -> tuple[str, int]:
        """Reads `({ … }, { … })`; gives the line that closes it and the index behind it."""
        self.position += 1
        while True:
            op.regions.append(self._region())
            line = self.lines[self.position]
            end = line.index("}")
            if not line.startswith("}, {", end):
                return line, end + 2
            self.position += 1

    def _signature(self, op: MlirOp, line: str, at: int) -> None:
        start = line.index("(", at)
        end = closing(line, start)
        op.operand_types = split(line[start + 1 : end - 1])
        rest = line[end + 4 :]  # behind " -> "
        types, _, location = rest.rpartition(" loc(")
        types = types or rest
        op.location = self.locations.get(location.rstrip(")"), UNKNOWN)
        op.result_types = split(types[1:-1]) if types.startswith("(") else [types]


def _result_names(line: str) -> tuple[list[str], int]:
    match = _RESULTS.match(line)
    if not match:
        return [], 0
    names: list[str] = []
    for part in match[1].split(", "):
        name, _, count = part.partition(":")
        names += [f"{name}#{index}" for index in range(int(count))] if count else [name]
    return names, match.end()
