"""A Program as text: one line an op, repeated blocks once with their count."""

from collections.abc import Callable

from supernode.ir.program import CALL, Block, Op, Port, Program
from supernode.ir.types import Arg, Value

Note = Callable[[Value], str]


def no_note(value: Value) -> str:
    """No remark behind a value's type."""
    return ""


def print_program(program: Program, note: Note = no_note) -> str:
    """The whole text; `note(value)` may add a remark (a layout) behind each type of `main`."""
    counts = program.counts()
    lines = [f"program {program.name}"]
    for port, value in zip(program.inputs, program.main.inputs, strict=True):
        lines.append(f"  input {value} {_port(port)}: {value.type}{note(value)}")
    for block in program.blocks:
        lines.append("")
        lines.append(f"block {block.name} x{counts[block.name]} ({_typed(block.inputs)})")
        lines += _body(block, no_note)
        lines.append(f"  return {_names(block.outputs)}")
    lines += ["", "main"]
    lines += _body(program.main, note)
    for i, (port, value) in enumerate(zip(program.outputs, program.main.outputs, strict=True)):
        source = program.updates[i]
        becomes = "" if source is None else f" -> {program.main.inputs[source]}"
        lines.append(f"  output {value} {_port(port)}: {value.type}{note(value)}{becomes}")
    return "\n".join(lines)


def _body(block: Block, note: Note) -> list[str]:
    lines: list[str] = []
    where = ""
    for op in block.ops:
        here = f"{op.site.module or '(step)'} {op.site.task or op.site.phase}"
        if here != where:
            lines.append(f"  # {here}")
            where = here
        lines.append("  " + print_op(op, note))
    return lines


def print_op(op: Op, note: Note = no_note) -> str:
    """One op as `%3: f32[4, 8] = aten.mm(%1, %2)`."""
    outputs = ", ".join(f"{out}: {out.type}{note(out)}" for out in op.outputs)
    args = [print_arg(arg) for arg in op.args]
    args += [f"{name}={print_arg(arg)}" for name, arg in op.kwargs]
    name = f"{CALL} {op.block}" if op.name == CALL else op.name
    return f"{outputs} = {name}({', '.join(args)})" if outputs else f"{name}({', '.join(args)})"


def print_typed(op: Op, note: Note = no_note) -> str:
    """One op as `aten.mm(f32[4, 8], f32[8, 2])`, for texts in which values have no names."""

    def show(value: Value) -> str:
        return f"{value.type}{note(value)}"

    args = [print_arg(arg, show) for arg in op.args]
    args += [f"{name}={print_arg(arg, show)}" for name, arg in op.kwargs]
    return f"{op.name}({', '.join(args)})"


def print_arg(arg: Arg, show: Note = str) -> str:
    """A value (as `show` has it), constant or list of them."""
    if isinstance(arg, tuple):
        return f"[{', '.join(print_arg(each, show) for each in arg)}]"
    if isinstance(arg, Value):
        return show(arg)
    return repr(arg) if isinstance(arg, str | float) else str(arg)


def _port(port: Port) -> str:
    return f"{port.role} {port.name}"


def _typed(values: tuple[Value, ...]) -> str:
    return ", ".join(f"{value}: {value.type}" for value in values)


def _names(values: tuple[Value, ...]) -> str:
    return ", ".join(map(str, values))
