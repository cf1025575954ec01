"""The LLVM module of a kernel: one program as a function, and the loop over a range of programs."""

from dataclasses import dataclass

from ..passes.fuse import base_pointer
from ..passes.schedule import schedule
from ..passes.steps import Schedule
from ..tile.ops import Module, Value, walk
from ..tile.types import Elem
from . import sanitizer
from .context import Bounds, Context, Target
from .control import emit_graph
from .writer import Writer

SYMBOL = "triton_cpu_kernel"

_RANGE = f"""
define void @{SYMBOL}(
    ptr noalias %args, i32 %gx, i32 %gy, i32 %gz, i64 %start, i64 %end) nounwind {{
entry:
  %some = icmp slt i64 %start, %end
  br i1 %some, label %turn, label %done
turn:
  %i = phi i64 [ %start, %entry ], [ %next, %turn ]
  %x = zext i32 %gx to i64
  %y = zext i32 %gy to i64
  %p0 = urem i64 %i, %x
  %rest = udiv i64 %i, %x
  %p1 = urem i64 %rest, %y
  %p2 = udiv i64 %rest, %y
  %a = trunc i64 %p0 to i32
  %b = trunc i64 %p1 to i32
  %c = trunc i64 %p2 to i32
  call void @program(ptr %args, i32 %a, i32 %b, i32 %c, i32 %gx, i32 %gy, i32 %gz)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %turn, label %done
done:
  ret void
}}"""


@dataclass(frozen=True, slots=True)
class Emitted:
    """LLVM text, the kinds of the arguments it reads from 8-byte slots, which of them it stores
    through, the bytes of scratch one program needs, and the places that may report a fault."""

    text: str
    arguments: list[str]
    written: list[int]
    scratch_bytes: int
    sites: list[dict[str, str | int]]


def emit_kernel(module: Module, target: Target) -> Emitted:
    """The LLVM module of `module`'s kernel. Slot 0 of the arguments is the fault record's address;
    if accesses are checked, first and last address of each pointer follow the arguments."""
    written = _written(module)
    plan: Schedule = schedule(module, checked=target.sanitize)
    w = Writer(target.features)
    c = Context(w, plan, target, module.kernel.name)
    c.arguments = frozenset(module.kernel.args)
    c.only_arguments = sanitizer.only_arguments(module.kernel.region)
    prologue = _read_arguments(c, module.kernel.args, module.kernel.divisibility)
    w.label_now = "start"
    emit_graph(c, plan.body)
    w.do("ret void")
    body = "\n".join([*prologue, *w.allocas, "  br label %start", "start:", *w.lines])
    program = (
        "define internal void @program(ptr noalias readonly %args, i32 %pid0, i32 %pid1, i32 %pid2,"
        f" i32 %grid0, i32 %grid1, i32 %grid2) nounwind {{\nentry:\n{body}\n}}"
    )
    parts = [*w.globals.values(), *w.declarations.values(), *w.functions.values(), program, _RANGE]
    kinds = [value.type.elem.name for value in module.kernel.args]
    return Emitted("\n".join(parts), kinds, written, plan.scratch_bytes, c.sites)


def _written(module: Module) -> list[int]:
    """Positions of the pointer arguments the kernel may store through."""
    bases = {
        base_pointer(op.operands[0])
        for op in walk(module.kernel.region)
        if op.name in ("store", "atomic_rmw", "atomic_cas")
    }
    carried = any(base.op is not None or base not in module.kernel.args for base in bases)
    return [
        number
        for number, value in enumerate(module.kernel.args)
        if value.type.elem.is_pointer and (carried or value in bases)
    ]


def _read_arguments(c: Context, args: list[Value], factors: list[int]) -> list[str]:
    lines = ["  %fault = load ptr, ptr %args, align 8"]

    def read(slot: int, elem: Elem | str, name: str) -> None:
        kind = elem if isinstance(elem, str) else elem.memory
        lines.append(f"  %{name}.p = getelementptr i64, ptr %args, i64 {slot}")
        lines.append(f"  %{name} = load {kind}, ptr %{name}.p, align 8")

    for number, (value, factor) in enumerate(zip(args, factors, strict=True)):
        name, elem = f"arg{number}", value.type.elem
        read(1 + number, elem, name if elem.bits > 1 else f"{name}.byte")
        if elem.bits == 1:
            lines.append(f"  %{name} = trunc i8 %{name}.byte to i1")
        c.define(value, f"%{name}", factor)
    if c.target.sanitize:
        slot = 1 + len(args)
        for number, value in enumerate(args):
            if value.type.elem.is_pointer:
                read(slot, "i64", f"low{number}")
                read(slot + 1, "i64", f"high{number}")
                c.bounds[value] = Bounds(number, f"%low{number}", f"%high{number}")
                slot += 2
    return lines
