"""Conversions between float formats, with the rounding Triton specifies (to nearest even)."""

from dataclasses import dataclass

from ..errors import UnsupportedOp
from ..tile.types import BF16, F16, F32, F64, I1, I8, I16, I32, Elem
from . import avx512
from .writer import Writer, vector

TOWARD_ZERO = 0  # `rounding` of tt.fp_to_fp; anything else is to nearest even


@dataclass(frozen=True, slots=True)
class _Fp8:
    """An 8-bit float with 4 exponent and 3 mantissa bits. `nan` is the pattern of its NaN, sign
    cleared; `signed_nan` says that only the pattern with the sign bit is one (FNUZ)."""

    bias: int
    largest: float
    nan: int


_FORMATS = {
    "f8E4M3FN": _Fp8(7, 448.0, 0x7F),
    "f8E4M3FNUZ": _Fp8(8, 240.0, 0x80),
    "f8E4M3B11FNUZ": _Fp8(11, 30.0, 0x80),
}


def float_cast(
    w: Writer, value: str, source: Elem, target: Elem, lanes: int, rounding: int | None = None
) -> str:
    """`value` as a `target`."""
    if source.name == target.name:
        return value
    if source.is_fp8:
        return _from_fp8(w, value, source, target, lanes)
    if target.is_fp8:
        return _to_fp8(w, value, source, target, lanes, rounding)
    if source.bits < target.bits:
        return w.convert("fpext", value, source, target, lanes)
    if source.name == "f64" and target.bits == 16:
        value, source = _round_to_odd(w, value, F64, F32, lanes), F32
    if source.bits == target.bits:  # f16 and bf16
        value, source = w.convert("fpext", value, source, F32, lanes), F32
    if target.name == "bf16":
        return _to_bf16(w, value, lanes, rounding)
    if rounding == TOWARD_ZERO and target.name == "f16":
        return _to_half_toward_zero(w, value, lanes)
    return w.convert("fptrunc", value, source, target, lanes)


class _Bits:
    """Integer arithmetic on vectors of one width, with constants spread over the lanes."""

    def __init__(self, w: Writer, elem: Elem, lanes: int) -> None:
        self.w, self.elem, self.lanes = w, elem, lanes
        self.kind = vector(elem, lanes)
        self.truth = vector(I1, lanes)

    def op(self, name: str, a: str, b: int | str) -> str:
        other = b if isinstance(b, str) else self.constant(b)
        return self.w.let(f"{name} {self.kind} {a}, {other}")

    def constant(self, value: int) -> str:
        return self.w.splat(self.elem, str(value), self.lanes)

    def equal(self, a: str, b: int) -> str:
        return self.w.let(f"icmp eq {self.kind} {a}, {self.constant(b)}")

    def select(self, condition: str, a: int | str, b: str) -> str:
        first = a if isinstance(a, str) else self.constant(a)
        return self.w.let(f"select {self.truth} {condition}, {self.kind} {first}, {self.kind} {b}")

    def of(self, value: str, elem: Elem) -> str:
        return self.w.let(f"bitcast {vector(elem, self.lanes)} {value} to {self.kind}")

    def to(self, value: str, elem: Elem) -> str:
        return self.w.let(f"bitcast {self.kind} {value} to {vector(elem, self.lanes)}")


def _is_nan(w: Writer, value: str, elem: Elem, lanes: int) -> str:
    return w.let(f"fcmp uno {vector(elem, lanes)} {value}, {value}")


def _to_bf16(w: Writer, value: str, lanes: int, rounding: int | None) -> str:
    """By integer arithmetic, unless the CPU has an instruction, and no number is NaN or subnormal:
    it takes those for zero."""
    if rounding != TOWARD_ZERO and avx512.fits(w, F32, lanes, "avx512bf16"):
        return w.choose(
            avx512.any_nan_or_subnormal(w, value, lanes),
            lambda: _to_bf16_by_bits(w, value, lanes, rounding),
            lambda: avx512.to_bf16(w, value, lanes),
            vector(BF16, lanes),
        )
    return _to_bf16_by_bits(w, value, lanes, rounding)


def _to_bf16_by_bits(w: Writer, value: str, lanes: int, rounding: int | None) -> str:
    bits = _Bits(w, I32, lanes)
    pattern = bits.of(value, F32)
    high = bits.op("lshr", pattern, 16)
    if rounding != TOWARD_ZERO:
        tie = bits.op("and", high, 1)
        high = bits.op("lshr", bits.op("add", bits.op("add", pattern, 0x7FFF), tie), 16)
    high = bits.select(_is_nan(w, value, F32, lanes), 0x7FC0, high)
    short = w.convert("trunc", high, I32, I16, lanes)
    return w.let(f"bitcast {vector(I16, lanes)} {short} to {vector(BF16, lanes)}")


def _to_half_toward_zero(w: Writer, value: str, lanes: int) -> str:
    """Rounds to nearest, then steps back where that went away from zero."""
    near = w.convert("fptrunc", value, F32, F16, lanes)
    back = w.convert("fpext", near, F16, F32, lanes)
    over = w.let(
        f"fcmp ogt {vector(F32, lanes)} {w.intrinsic('fabs', F32, lanes, back)},"
        f" {w.intrinsic('fabs', F32, lanes, value)}"
    )
    bits = _Bits(w, I16, lanes)
    pattern = bits.of(near, F16)
    return bits.to(bits.select(over, bits.op("sub", pattern, 1), pattern), F16)


def _round_to_odd(w: Writer, value: str, wide: Elem, narrow: Elem, lanes: int) -> str:
    """`wide` → `narrow` such that a second rounding, to fewer bits, gives the right answer."""
    bits = _Bits(w, I32 if narrow.bits == 32 else I16, lanes)
    near = w.convert("fptrunc", value, wide, narrow, lanes)
    back = w.convert("fpext", near, narrow, wide, lanes)
    kind = vector(wide, lanes)
    inexact = w.let(f"fcmp one {kind} {back}, {value}")
    above = w.let(
        f"fcmp ogt {kind} {w.intrinsic('fabs', wide, lanes, back)},"
        f" {w.intrinsic('fabs', wide, lanes, value)}"
    )
    pattern = bits.of(near, narrow)
    down = bits.op("sub", pattern, w.convert("zext", above, I1, bits.elem, lanes))
    return bits.to(bits.select(inexact, bits.op("or", down, 1), pattern), narrow)


def _from_fp8(w: Writer, value: str, source: Elem, target: Elem, lanes: int) -> str:
    if source.name == "f8E5M2":  # the high byte of a half
        wide = _Bits(w, I16, lanes)
        half = wide.op("shl", w.convert("zext", value, I8, I16, lanes), 8)
        return float_cast(w, wide.to(half, F16), F16, target, lanes)
    if source.name == "f8E5M2FNUZ":
        single = _e5m2fnuz_to_f32(w, value, lanes)
    elif source.name in _FORMATS:
        single = _e4m3_to_f32(w, value, _FORMATS[source.name], lanes)
    else:
        raise UnsupportedOp(f"No conversion from {source.name}.")
    return float_cast(w, single, F32, target, lanes)


def _widen(w: Writer, value: str, lanes: int, mantissa_bits: int, bias: int) -> tuple[str, str]:
    """The magnitude of a small float as f32, and the byte as i32: the exponent and mantissa are
    moved to f32's places and the difference of the biases multiplied in, which suits denormals."""
    bits = _Bits(w, I32, lanes)
    byte = w.convert("zext", value, I8, I32, lanes)
    moved = bits.op("shl", bits.op("and", byte, 0x7F), 23 - mantissa_bits)
    scale = w.constant(2.0 ** (127 - bias), F32, lanes)
    size = w.let(f"fmul {vector(F32, lanes)} {bits.to(moved, F32)}, {scale}")
    sign = bits.op("shl", bits.op("and", byte, 0x80), 24)
    return bits.op("or", bits.of(size, F32), sign), byte


def _e4m3_to_f32(w: Writer, value: str, form: _Fp8, lanes: int) -> str:
    bits = _Bits(w, I32, lanes)
    pattern, byte = _widen(w, value, lanes, 3, form.bias)
    tested = bits.op("and", byte, 0x7F) if form.nan == 0x7F else byte
    return bits.to(bits.select(bits.equal(tested, form.nan), 0x7FC00000, pattern), F32)


def _e5m2fnuz_to_f32(w: Writer, value: str, lanes: int) -> str:
    bits = _Bits(w, I32, lanes)
    pattern, byte = _widen(w, value, lanes, 2, 16)
    return bits.to(bits.select(bits.equal(byte, 0x80), 0x7FC00000, pattern), F32)


def _to_fp8(
    w: Writer, value: str, source: Elem, target: Elem, lanes: int, rounding: int | None
) -> str:
    if target.name == "f8E5M2":
        return _to_e5m2(w, value, source, lanes, rounding)
    if target.name == "f8E5M2FNUZ":
        form, mantissa = _Fp8(16, 57344.0, 0x80), 2
    elif target.name in _FORMATS:
        form, mantissa = _FORMATS[target.name], 3
    else:
        raise UnsupportedOp(f"No conversion to {target.name}.")
    single = float_cast(w, value, source, F32, lanes)
    return _narrow(w, single, form, mantissa, lanes)


def _narrow(w: Writer, value: str, form: _Fp8, mantissa: int, lanes: int) -> str:
    """f32 → a small float, saturating; a value too small becomes zero, or denormal, by scaling."""
    bits = _Bits(w, I32, lanes)
    sign = bits.op("and", bits.op("lshr", bits.of(value, F32), 24), 0x80)
    size = w.intrinsic("fabs", F32, lanes, value)
    size = w.intrinsic("minnum", F32, lanes, size, w.constant(form.largest, F32, lanes))
    scale = w.constant(2.0 ** -(127 - form.bias), F32, lanes)
    pattern = bits.of(w.let(f"fmul {vector(F32, lanes)} {size}, {scale}"), F32)
    drop = 23 - mantissa
    tie = bits.op("and", bits.op("lshr", pattern, drop), 1)
    rounded = bits.op("add", bits.op("add", pattern, (1 << (drop - 1)) - 1), tie)
    byte = bits.op("lshr", rounded, drop)
    if form.nan == 0x80:  # these formats have no negative zero: its pattern is the NaN
        sign = bits.select(bits.equal(byte, 0), 0, sign)
    byte = bits.op("or", byte, sign)
    byte = bits.select(_is_nan(w, value, F32, lanes), form.nan, byte)
    return w.convert("trunc", byte, I32, I8, lanes)


def _to_e5m2(w: Writer, value: str, source: Elem, lanes: int, rounding: int | None) -> str:
    bits = _Bits(w, I16, lanes)
    single = float_cast(w, value, source, F32, lanes)
    if rounding == TOWARD_ZERO:
        half = _to_half_toward_zero(w, single, lanes)
    else:
        half = _round_to_odd(w, single, F32, F16, lanes)
    pattern = bits.of(half, F16)
    byte = bits.op("lshr", pattern, 8)
    if rounding != TOWARD_ZERO:
        tie = bits.op("and", byte, 1)
        byte = bits.op("lshr", bits.op("add", bits.op("add", pattern, 0x7F), tie), 8)
        byte = bits.select(_is_nan(w, half, F16, lanes), 0x7F, byte)
    return w.convert("trunc", byte, I16, I8, lanes)
