"""How a program reports that something is wrong: it fills the launch's fault record and returns.

The record is `{i32 taken, i32 site, i32 pid0, i32 pid1, i32 pid2, i32 size, i64 detail}`; the first
program to take it wins. `site` numbers the messages in the kernel's metadata.
"""

from ..tile.ops import Op
from .context import Context

RECORD = "{ i32, i32, i32, i32, i32, i32, i64 }"


ANY = -1
"""In place of an argument's number: any of them."""


def record(
    c: Context, op: Op, message: str, detail: str = "0", size: int = 0, argument: int = ANY
) -> None:
    """Ends the program here with a report; the caller continues in a block that never runs.
    Of a wrong access: `detail` is the address, `size` its bytes, `argument` where it should be."""
    w = c.w
    place = {"file": op.location.file, "line": op.location.line}
    c.sites.append({"message": message, **place, "argument": argument})
    site = len(c.sites) - 1
    taken = w.let("cmpxchg ptr %fault, i32 0, i32 1 seq_cst seq_cst")
    won = w.let(f"extractvalue {{ i32, i1 }} {taken}, 1")
    with w.when(won):
        values = [f"i32 {site}", "i32 %pid0", "i32 %pid1", "i32 %pid2", f"i32 {size}"]
        for index, value in enumerate([*values, f"i64 {detail}"], 1):
            place = w.let(f"getelementptr {RECORD}, ptr %fault, i32 0, i32 {index}")
            w.do(f"store {value}, ptr {place}, align 4")
    w.do("ret void")
    w.label(w.name("after"))
