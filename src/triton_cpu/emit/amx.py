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
_CONFIG_BYTES = 64
_INTRINSICS = {
    "ldtilecfg": "ptr",
    "tilerelease": "",
    "tileloadd64": "i8 immarg, ptr, i64",
    "tilestored64": "i8 immarg, ptr, i64",
    "tdpbf16ps": "i8 immarg, i8 immarg, i8 immarg",
}


def fits(features: frozenset[str], m: int, n: int, k: int) -> bool:
    """Whether the CPU has it and whole registers cover the product, whose sizes are powers of 2."""
    return FEATURE in features and m >= SIDE and n >= SIDE and k >= 2 * _PAIRS


class Product:
    """Writes C += A·B; A has rows `a_stride` elements apart, B rows `b_stride`, C `c_stride`.

    Blocks of 2 × 2 tiles of C stay in registers 0 to 3 while k passes by; 4 and 5 hold A, 6 and 7
    B, whose rows are first laid side by side in pairs, as the instruction wants them.
    """

    def __init__(self, w: Writer, m: int, n: int, k: int, strides: tuple[int, int, int]) -> None:
        self.w = w
        self.m, self.n, self.k = m, n, k
        self.a_stride, self.b_stride, self.c_stride = strides
        self.pairs = k // 2

    def write(self) -> None:
        """The whole product."""
        self._call("ldtilecfg", f"ptr {self._shapes()}")
        paired = self.w.alloca(f"[{self.k * self.n} x i16]")
        self._pair_rows(paired)
        rows, columns = min(2, self.m // SIDE), min(2, self.n // SIDE)
        with self.w.loop(self.n, columns * SIDE) as j, self.w.loop(self.m, rows * SIDE) as i:
            self._block(paired, i, rows, j, columns)
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
        """B as [n / 16][k / 2][16][2]: two rows of 16 columns make one row of a register."""
        w = self.w
        order = [lane for i in range(SIDE) for lane in (i, i + SIDE)]
        with w.loop(self.n, SIDE) as column, w.loop(self.pairs) as pair:
            above = w.let(f"mul nsw i32 {pair}, 2")
            below = w.let(f"add nsw i32 {above}, 1")
            a, b = (
                w.load(I16, self._element(I16, "%B", row, self.b_stride, column), SIDE)
                for row in (above, below)
            )
            target = w.let(f"mul nsw i32 {column}, {self.pairs}")
            target = w.let(f"add nsw i32 {target}, {w.let(f'mul nsw i32 {pair}, {SIDE}')}")
            place = w.offset(I16, paired, w.let(f"mul nsw i32 {target}, 2"), I32)
            w.store(I16, w.shuffle(I16, a, b, SIDE, order), place, 2 * SIDE)

    def _block(self, paired: str, i: str, rows: int, j: str, columns: int) -> None:
        """The tiles of C whose first element is (i, j)."""
        w = self.w
        lines = [w.let(f"add nsw i32 {i}, {x * SIDE}") for x in range(rows)]
        across = [w.let(f"add nsw i32 {j}, {y * SIDE}") for y in range(columns)]
        places = [
            self._element(F32, "%C", line, self.c_stride, column)
            for line in lines
            for column in across
        ]
        for number, place in enumerate(places):
            self._load(number, place, 4 * self.c_stride)
        stem, before = w.name("k"), w.label_now
        w.jump(stem)
        w.label(stem)
        index = f"%{stem}.i"
        w.do(f"{index} = phi i32 [ 0, %{before} ], [ {index}.next, %{stem} ]")
        inner = w.let(f"mul nsw i32 {index}, {2 * _PAIRS}")
        for x, line in enumerate(lines):
            at = self._element(I16, "%A", line, self.a_stride, inner)
            self._load(4 + x, at, 2 * self.a_stride)
        for y, column in enumerate(across):
            start = w.let(f"mul nsw i32 {column}, {2 * self.pairs}")
            at = w.let(f"add nsw i32 {start}, {w.let(f'mul nsw i32 {inner}, {SIDE}')}")
            self._load(6 + y, w.offset(I16, paired, at, I32), 64)
        for number in range(len(places)):
            x, y = divmod(number, columns)
            self._call("tdpbf16ps", f"i8 {number}, i8 {4 + x}, i8 {6 + y}")
        w.do(f"{index}.next = add nuw nsw i32 {index}, 1")
        again = w.let(f"icmp slt i32 {index}.next, {self.k // (2 * _PAIRS)}")
        w.branch(again, stem, f"{stem}.end")
        w.label(f"{stem}.end")
        for number, place in enumerate(places):
            self._call("tilestored64", f"i8 {number}, ptr {place}, i64 {4 * self.c_stride}")

    def _element(self, elem: Elem, base: str, row: str, stride: int, column: str) -> str:
        w = self.w
        index = w.let(f"add nsw i32 {w.let(f'mul nsw i32 {row}, {stride}')}, {column}")
        return w.offset(elem, base, index, I32)

    def _load(self, number: int, place: str, stride_bytes: int) -> None:
        self._call("tileloadd64", f"i8 {number}, ptr {place}, i64 {stride_bytes}")
