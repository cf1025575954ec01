"""Reads Triton's own form of a kernel (TTIR, as `asm["ttir"]` prints it), as far as it counts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_LOCATION = re.compile(r' loc\((?:[^()"]|"[^"]*"|\((?:[^()"]|"[^"]*"|\([^()]*\))*\))*\)')
_RESULTS = re.compile(r"((?:%[\w$.-]+(?::\d+)?(?:, )?)+) = (.*)")
_NAME = re.compile(r'"?([a-z_]+\.[\w.]+)"?(.*)')
_LABEL = re.compile(r"\^(\w+)(\((.*)\))?:")
_FUNCTION = re.compile(
    r"tt\.func (?:\w+ )?@\"?([\w.$]+)\"?\((.*?)\)(?: ->.*)?(?: attributes .*)? \{$"
)
_ARGUMENT = re.compile(r"(%[\w$.-]+): ([^{},]+)")
VALUE = re.compile(r"%[\w$.-]+(?:#\d+)?")
_SCALAR = re.compile(r"((?:\d+x)*)([a-z]\w*)")
_BITS = re.compile(r"[a-z]+(\d+)")


@dataclass(slots=True)
class Line:
    """One op: `text` holds its operands and attributes, `types` what is behind the last colon."""

    name: str
    results: list[str]
    text: str
    types: str
    regions: "list[Region]" = field(default_factory=list["Region"])

    @property
    def operands(self) -> list[str]:
        """The values it reads, in order."""
        return VALUE.findall(self.text)


@dataclass(slots=True)
class Region:
    """Blocks by label, the first is entered; each with its arguments."""

    blocks: dict[str, list[Line]] = field(default_factory=dict[str, list[Line]])
    args: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


@dataclass(slots=True)
class Function:
    """A function: its arguments with their types, its body."""

    args: list[tuple[str, str]]
    body: Region


def functions(text: str) -> dict[str, Function]:
    """The functions of a module by name; the kernel is the first."""
    lines = (_LOCATION.sub("", line).split("  //")[0].strip() for line in text.splitlines())
    rest = iter([line for line in lines if line and not line.startswith("#")])
    found: dict[str, Function] = {}
    for line in rest:
        head = _FUNCTION.match(line)
        if head is not None:
            args = [(name, kind.strip()) for name, kind in _ARGUMENT.findall(head[2])]
            found[head[1]] = Function(args, _region(rest)[0])
    return found


def _region(lines: Iterator[str], given: str = "") -> tuple[Region, str]:
    """A region, up to the line that closes it."""
    region, label = Region({"": []}, {"": VALUE.findall(given)}), ""
    for line in lines:
        if line.startswith("}"):
            return region, line
        head = _LABEL.match(line)
        if head is None:
            region.blocks[label].append(_line(line, lines))
        elif region.blocks[label] or label:
            label = head[1]
            region.blocks[label] = []
            region.args[label] = VALUE.findall(head[3] or "")
        else:
            region.args[label] = VALUE.findall(head[3] or "")
    raise ValueError("a region does not end")


def _line(text: str, lines: Iterator[str]) -> Line:
    results = _RESULTS.match(text)
    body = results[2] if results else text
    name = _NAME.match(body)
    if name is None:
        raise ValueError(f"not understood: {text}")
    regions: list[Region] = []
    while body.endswith("{"):
        region, body = _region(lines)
        regions.append(region)
    rest = f"{name[2]} {body}" if regions else name[2]
    operands, colon, types = rest.rpartition(" : ")
    names = _names(results[1] if results else "")
    return Line(name[1], names, operands if colon else rest, types, regions)


def _names(text: str) -> list[str]:
    """`%a:2, %b` gives `%a#0`, `%a#1`, `%b`."""
    names: list[str] = []
    for part in text.split(", ") if text else ():
        name, _, count = part.partition(":")
        names += [f"{name}#{i}" for i in range(int(count))] if count else [name]
    return names


def last_type(types: str) -> str:
    """The last of `tensor<4xf32>, i1`, or what is behind the arrow."""
    return types.rpartition("->")[2].rpartition(", ")[2].strip(" ()")


def shape_of(kind: str) -> tuple[tuple[int, ...], str]:
    """The dims and the element of a tensor, of pointers or not; of a scalar, none."""
    plain = re.sub(r"tensor<|!tt\.ptr<|!tt\.tensordesc<", "", kind).strip("> ")
    match = _SCALAR.match(plain)
    if match is None:
        raise ValueError(f"not a type: {kind}")
    return tuple(int(size) for size in match[1].split("x") if size), match[2]


def element_bytes(element: str) -> int:
    """The size of one in memory: `f32` 4, `bf16` 2, `f8E4M3FN` 1, `i1` 1."""
    bits = _BITS.match(element)
    return max(int(bits[1]) // 8, 1) if bits else 8
