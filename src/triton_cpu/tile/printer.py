"""The text form of tile IR, for `kernel.asm["tile"]` and tests."""

from .ops import Block, Module, Op, Region


def print_module(module: Module) -> str:
    """The kernel as text: one op a line, regions indented."""
    kernel = module.kernel
    args = ", ".join(f"{value}: {value.type}" for value in kernel.args)
    lines = [f"kernel {kernel.name}({args}) {{"]
    lines += _region(kernel.region, 1)
    return "\n".join([*lines, "}"])


def print_op(op: Op) -> str:
    """One op without its regions."""
    results = ", ".join(f"{value}: {value.type}" for value in op.results)
    attrs = ", ".join(
        f"{name}={value}" for name, value in op.attrs.items() if value not in ([], "")
    )
    text = f"{results} = " if results else ""
    text += op.name
    if op.operands:
        text += " " + ", ".join(map(str, op.operands))
    return f"{text} {{{attrs}}}" if attrs else text


def _region(region: Region, depth: int) -> list[str]:
    lines: list[str] = []
    for block in region.blocks:
        if len(region.blocks) > 1 or (block.args and depth > 1):
            args = ", ".join(f"{value}: {value.type}" for value in block.args)
            lines.append("  " * depth + f"{block.label}({args}):")
        lines += _ops(block, depth)
    return lines


def _ops(block: Block, depth: int) -> list[str]:
    lines: list[str] = []
    for op in block.ops:
        lines.append("  " * depth + print_op(op) + (" {" if op.regions else ""))
        for index, region in enumerate(op.regions):
            if index:
                lines.append("  " * depth + "} {")
            lines += _region(region, depth + 1)
        if op.regions:
            lines.append("  " * depth + "}")
    return lines
