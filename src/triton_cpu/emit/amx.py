"""`tt.dot` of bfloat16 by the CPU's matrix unit (AMX): blocks of 16 × 16 sums in tile registers.

**Source:** Intel, "Architecture Instruction Set Extensions Programming Reference", chapter on AMX:
TDPBF16PS adds to each float32 sum the products of pairs of bfloat16, subnormal numbers as zero.
"""

from ..tile.types import F32, I16, I32, Elem
from .writer import Writer

FEATURE = "amx-bf16"
SIDE = 16
"""Rows of a tile register, and the float32 in one row."""
_PAIRS = 16
"""Pairs of bfloat16 in one row."""
_REGISTER = SIDE * 2 * _PAIRS
"""The bfloat16 of one tile register."""
_CONFIG_BYTES = 64
_INTRINSICS = {
    "ldtilecfg": "ptr",
    "tilerelease": "",
    "tilezero": "i8 immarg",
    "tileloadd64": "i8 immarg, ptr, i64",
    "tilestored64": "i8 immarg, ptr, i64",
    "tdpbf16ps": "i8 immarg, i8 immarg, i8 immarg",
}


def fits(features: frozenset[str], m: int, n: int, k: int) -> bool:
    """Whether the CPU has it and whole registers cover the product, whose sizes are powers of 2."""
    return FEATURE in features and m >= SIDE and n >= SIDE and k >= 2 * _PAIRS


class Product:
    """Writes C += A·B. `rows` says how many elements their rows are apart: numbers, or names of i64
    where a tile is read in the caller's memory.

    Blocks of 2 × 2 tiles of C stay in registers 0 to 3 while k passes by; 4 and 5 hold A, 6 and 7
    B, whose rows are first laid side by side in pairs, as the instruction wants them. All columns
    pass by one panel of rows of A, which stays in the first-level cache. Of the caller's A it is a
    copy, and the next one is copied meanwhile: its rows are no stream that a CPU foresees.
    """

    def __init__(self, w: Writer, m: int, n: int, k: int, rows: tuple[str, str, str]) -> None:
        self.w = w
        self.m, self.n, self.k = m, n, k
        self.a_row, self.b_row, self.c_row = rows
        self.across = 2 if n >= 2 * SIDE else 1
        self.down = 2 if m >= 2 * SIDE else 1

    def write(self) -> None:
        """The whole product."""
        w, down = self.w, self.down * SIDE
        self._call("ldtilecfg", f"ptr {self._shapes()}")
        paired = w.alloca(f"[{self.k * self.n} x i16]")
        self._pair_rows(paired)
        moving = self.a_row.startswith("%")
        copies = w.alloca(f"[{2 * down * self.k} x i16]") if moving else ""
        if moving:
            self._copy_panel("%A", copies)
        with w.loop(self.m, down) as i:
            panel, row = self.w.element(I16, "%A", i, self.a_row, "0"), self.a_row
            ahead = None
            if moving:
                now, row = w.let(f"and i32 {i}, {down}"), str(self.k)
                panel = self.w.element(I16, copies, now, row, "0")
                other = self.w.element(I16, copies, w.let(f"xor i32 {now}, {down}"), row, "0")
                ahead = self._next_panel(i), other
            with w.loop(self.n, self.across * SIDE) as j:
                self._block(panel, row, ahead, paired, i, j)
        self._call("tilerelease", "")

    def _call(self, name: str, args: str) -> None:
        full = f"llvm.x86.{name}"
        self.w.declare(full, f"declare void @{full}({_INTRINSICS[name]})")
        self.w.do(f"call void @{full}({args})")

    def _shapes(self) -> str:
        """All eight registers with 16 rows of 64 bytes."""
        data = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[SIDE] * 8, *[0] * 8])
        assert len(data) == _CONFIG_BYTES
        name = "@amx.config"
        body = "".join(f"\\{byte:02X}" for byte in data)
        kind = f"[{_CONFIG_BYTES} x i8]"
        self.w.globals["amx.config"] = f'{name} = private constant {kind} c"{body}", align 64'
        return name

    def _pair_rows(self, paired: str) -> None:
        """B as [n / 32][k / 32] blocks of two registers (one, if n is 16): of each, two rows of 16
        columns make one row."""
        w, lanes = self.w, self.across * SIDE
        with w.loop(self.k // 2) as pair, w.loop(self.n, lanes) as column:
            above = w.let(f"shl i32 {pair}, 1")
            below = w.let(f"or i32 {above}, 1")
            a, b = (
                w.load(I16, self.w.element(I16, "%B", row, self.b_row, column), lanes)
                for row in (above, below)
            )
            target = self._paired(paired, column, w.let(f"lshr i32 {pair}, 4"))
            line = w.let(f"shl i32 {w.let(f'and i32 {pair}, {_PAIRS - 1}')}, 5")
            target = w.offset(I16, target, line, I32)
            for number in range(self.across):
                first = number * SIDE
                order = [lane for i in range(first, first + SIDE) for lane in (i, i + lanes)]
                place = w.offset(I16, target, str(number * _REGISTER))
                w.store(I16, w.shuffle(I16, a, b, lanes, order), place, 2 * SIDE)

    def _paired(self, paired: str, column: str, block: str) -> str:
        """Where the registers lie that hold B from `column` on, and its 32 rows number `block`."""
        w = self.w
        start = w.let(f"mul nsw i32 {column}, {self.k}")
        inner = w.let(f"mul nsw i32 {block}, {self.across * _REGISTER}")
        return w.offset(I16, paired, w.let(f"add nsw i32 {start}, {inner}"), I32)

    def _next_panel(self, i: str) -> str:
        """Where the rows of A after those from `i` on begin; the last ones have none after them."""
        w, down = self.w, self.down * SIDE
        later = w.let(f"add nuw nsw i32 {i}, {down}")
        later = w.intrinsic("umin", I32, 0, later, str(self.m - down))
        return self.w.element(I16, "%A", later, self.a_row, "0")

    def _copy_panel(self, panel: str, copied: str) -> None:
        w = self.w
        lanes = 2 * _PAIRS
        with w.loop(self.down * SIDE) as row, w.loop(self.k, lanes) as column:
            value = w.load(I16, self.w.element(I16, panel, row, self.a_row, column), lanes)
            w.store(I16, value, self.w.element(I16, copied, row, str(self.k), column), lanes)

    def _block(
        self,
        panel: str,
        row: str,
        ahead: tuple[str, str] | None,
        paired: str,
        i: str,
        j: str,
    ) -> None:
        """The tiles of C whose first element is (i, j)."""
        w = self.w
        lines = [w.let(f"add nsw i32 {i}, {x * SIDE}") for x in range(self.down)]
        across = [w.let(f"add nsw i32 {j}, {y * SIDE}") for y in range(self.across)]
        places = [
            self.w.element(F32, "%C", line, self.c_row, column)
            for line in lines
            for column in across
        ]
        stem = w.name("start")
        w.branch("%start", f"{stem}.zero", f"{stem}.load")
        w.label(f"{stem}.zero")
        for number in range(len(places)):
            self._call("tilezero", f"i8 {number}")
        w.jump(f"{stem}.go")
        w.label(f"{stem}.load")
        for number, place in enumerate(places):
            self._load(number, place, F32, self.c_row)
        w.jump(f"{stem}.go")
        w.label(f"{stem}.go")
        with w.loop(self.k, 2 * _PAIRS) as inner:
            for x in range(self.down):
                self._load(4 + x, self.w.element(I16, panel, str(x * SIDE), row, inner), I16, row)
            right = self._paired(paired, j, w.let(f"lshr i32 {inner}, 5"))
            for y in range(self.across):
                self._load(6 + y, w.offset(I16, right, str(y * _REGISTER)), I16, str(2 * _PAIRS))
            self._await_sums(i, j, inner)
            if ahead:
                self._copy_ahead(*ahead, j, inner)
            for number in range(len(places)):
                x, y = divmod(number, self.across)
                self._call("tdpbf16ps", f"i8 {number}, i8 {4 + x}, i8 {6 + y}")
        for number, place in enumerate(places):
            self._call(
                "tilestored64", f"i8 {number}, ptr {place}, i64 {self._bytes(F32, self.c_row)}"
            )

    def _await_sums(self, i: str, j: str, inner: str) -> None:
        """Asks for some lines of the next block of C: for all, when inner is through."""
        w, steps = self.w, self.k // (2 * _PAIRS)
        rows, column = self.down * SIDE, w.let(f"add nsw i32 {j}, {self.across * SIDE}")
        count = max(1, rows // steps)
        first = w.let(f"mul nsw i32 {w.let(f'lshr i32 {inner}, 5')}, {count}")
        for number in range(count):
            row = w.let(f"add nsw i32 {i}, {w.let(f'add nsw i32 {first}, {number}')}")
            place = w.element(F32, "%C", row, self.c_row, column)
            w.fetch(place, self.across * SIDE * F32.size_bytes, write=True)

    def _copy_ahead(self, ahead: str, copy: str, j: str, inner: str) -> None:
        """Copies a line of some rows of A's next panel: of all, when j and inner are through."""
        w = self.w
        rows = max(1, self.down * SIDE * self.across * SIDE // self.n)
        first = w.let(f"mul nsw i32 {w.let(f'udiv i32 {j}, {self.across * SIDE}')}, {rows}")
        for number in range(rows):
            row = w.let(f"add nsw i32 {first}, {number}")
            row = w.let(f"and i32 {row}, {self.down * SIDE - 1}")  # more columns than rows: again
            value = w.load(I16, self.w.element(I16, ahead, row, self.a_row, inner), 2 * _PAIRS)
            w.store(I16, value, self.w.element(I16, copy, row, str(self.k), inner), 2 * _PAIRS)

    def _bytes(self, elem: Elem, stride: str) -> str:
        if not stride.startswith("%"):
            return str(int(stride) * elem.size_bytes)
        return self.w.let(f"mul nsw i64 {stride}, {elem.size_bytes}")

    def _load(self, number: int, place: str, elem: Elem, stride: str) -> None:
        self._call("tileloadd64", f"i8 {number}, ptr {place}, i64 {self._bytes(elem, stride)}")
