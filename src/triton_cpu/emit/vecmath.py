"""float32 math on vectors: argument reduction, a polynomial, and the special values.

Each function is accurate to 2 ulp over all of float32 (tests/triton_cpu/test_math.py); sine and
cosine of arguments beyond 2¹⁵ go lane by lane to the C library. Polynomials: `polynomials`.
"""

import math
from collections.abc import Callable, Sequence

from ..tile.types import F32, F64, I1, I32
from . import avx512, polynomials
from .writer import Writer, vector


class Vec:
    """Arithmetic on `lanes` float32 (0: one scalar) in a writer."""

    def __init__(self, w: Writer, lanes: int) -> None:
        self.w, self.lanes = w, lanes
        self.f32, self.i32 = vector(F32, lanes), vector(I32, lanes)
        self.i1 = vector(I1, lanes)

    def c(self, value: float) -> str:
        """A float constant."""
        return self.w.constant(value, F32, self.lanes)

    def ci(self, value: int) -> str:
        """An integer constant."""
        return self.w.constant(value, I32, self.lanes)

    def op(self, name: str, a: str, b: str) -> str:
        """fadd, fsub, fmul, fdiv."""
        return self.w.let(f"{name} {self.f32} {a}, {b}")

    def iop(self, name: str, a: str, b: str) -> str:
        """add, sub, and, shl, …"""
        return self.w.let(f"{name} {self.i32} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        """a·b + c in one rounding."""
        return self.w.intrinsic("fma", F32, self.lanes, a, b, c)

    def call(self, name: str, *args: str) -> str:
        """An LLVM intrinsic."""
        return self.w.intrinsic(name, F32, self.lanes, *args)

    def less(self, a: str, b: str) -> str:
        """a < b; false for NaN."""
        return self.w.let(f"fcmp olt {self.f32} {a}, {b}")

    def test(self, predicate: str, a: str, b: str) -> str:
        """A comparison of floats."""
        return self.w.let(f"fcmp {predicate} {self.f32} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        """a where the condition holds, else b."""
        return self.w.let(f"select {self.i1} {condition}, {self.f32} {a}, {self.f32} {b}")

    def bits(self, value: str) -> str:
        """The pattern of floats."""
        return self.w.let(f"bitcast {self.f32} {value} to {self.i32}")

    def floats(self, value: str) -> str:
        """Floats of a pattern."""
        return self.w.let(f"bitcast {self.i32} {value} to {self.f32}")

    def to_int(self, value: str) -> str:
        """Integers of whole floats."""
        return self.w.let(f"fptosi {self.f32} {value} to {self.i32}")

    def to_float(self, value: str) -> str:
        """Floats of integers."""
        return self.w.let(f"sitofp {self.i32} {value} to {self.f32}")

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """Horner's rule, lowest power first."""
        value = self.c(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            value = self.fma(value, x, self.c(coefficient))
        return value

    def clamp(self, x: str, low: float, high: float) -> str:
        """x kept within bounds; NaN stays NaN."""
        upper = self.select(self.less(self.c(high), x), self.c(high), x)
        return self.select(self.less(upper, self.c(low)), self.c(low), upper)


def _scale(v: Vec, value: str, power: str) -> str:
    """value · 2^power for whole floats `power`; denormal and infinite results come out right."""
    if avx512.fits(v.w, F32, v.lanes, "avx512f"):
        return avx512.scale(v.w, F32, value, power, v.lanes)
    whole = v.to_int(power)
    half = v.iop("ashr", whole, v.ci(1))
    other = v.iop("sub", whole, half)
    for part in (half, other):
        factor = v.floats(v.iop("shl", v.iop("add", part, v.ci(127)), v.ci(23)))
        value = v.op("fmul", value, factor)
    return value


def _keep_nan(v: Vec, x: str, value: str) -> str:
    """Float arithmetic hands a NaN on; integer arithmetic on exponents does not."""
    if avx512.fits(v.w, F32, v.lanes, "avx512f"):
        return value
    return v.select(v.test("uno", x, x), x, value)


def exp2(v: Vec, x: str) -> str:
    """2^x."""
    clamped = v.clamp(x, -152.0, 129.0)
    whole = v.call("roundeven", clamped)
    value = v.polynomial(v.op("fsub", clamped, whole), polynomials.EXP2)
    return _keep_nan(v, x, _scale(v, value, whole))


def exp(v: Vec, x: str) -> str:
    """e^x: x = n·ln 2 + r, with ln 2 in two parts so that n·(high part) is exact."""
    clamped = v.clamp(x, -105.0, 90.0)
    whole = v.call("roundeven", v.op("fmul", clamped, v.c(1 / math.log(2))))
    rest = v.fma(whole, v.c(-0.693145751953125), clamped)
    rest = v.fma(whole, v.c(-(math.log(2) - 0.693145751953125)), rest)
    value = v.polynomial(rest, polynomials.EXP)
    return _keep_nan(v, x, _scale(v, value, whole))


def _log_parts(v: Vec, x: str) -> tuple[str, str, str]:
    """Exponent, mantissa − 1 and the polynomial's share of ln(mantissa); √½ ≤ mantissa < √2."""
    small = v.less(x, v.c(1.1754943508222875e-38))
    scaled = v.select(small, v.op("fmul", x, v.c(8388608.0)), x)
    pattern = v.bits(scaled)
    power = v.iop("ashr", v.iop("sub", pattern, v.ci(0x3F3504F3)), v.ci(23))
    mantissa = v.floats(v.iop("sub", pattern, v.iop("shl", power, v.ci(23))))
    exponent = v.op("fadd", v.to_float(power), v.select(small, v.c(-23.0), v.c(0.0)))
    t = v.op("fsub", mantissa, v.c(1.0))
    return exponent, t, v.op("fmul", v.op("fmul", t, t), v.polynomial(t, polynomials.LOG))


def _log_special(v: Vec, x: str, value: str) -> str:
    value = v.select(v.test("oeq", x, v.c(0.0)), v.c(-math.inf), value)
    value = v.select(v.test("oeq", x, v.c(math.inf)), x, value)
    return v.select(v.test("ult", x, v.c(0.0)), v.c(math.nan), value)


def log(v: Vec, x: str) -> str:
    """Natural logarithm."""
    exponent, t, tail = _log_parts(v, x)
    high = 0.693359375
    value = v.fma(exponent, v.c(math.log(2) - high), tail)
    value = v.fma(exponent, v.c(high), v.op("fadd", value, t))
    return _log_special(v, x, value)


def log2(v: Vec, x: str) -> str:
    """Logarithm to base 2; 1/ln 2 in two parts."""
    exponent, t, tail = _log_parts(v, x)
    inverse = 1 / math.log(2)
    high = 1.44140625
    low = v.fma(tail, v.c(inverse), v.op("fmul", t, v.c(inverse - high)))
    value = v.op("fadd", exponent, v.fma(t, v.c(high), low))
    return _log_special(v, x, value)


def _trigonometric(cosine: bool) -> Callable[[Vec, str], str]:
    def function(v: Vec, x: str) -> str:
        quarter, rest = _reduce_angle(v, x)
        if cosine:
            quarter = v.iop("add", quarter, v.ci(1))
        square = v.op("fmul", rest, rest)
        cube = v.op("fmul", rest, square)
        sine = v.fma(cube, v.polynomial(square, polynomials.SIN), rest)
        fourth = v.op("fmul", square, square)
        base = v.fma(square, v.c(-0.5), v.c(1.0))
        other = v.fma(fourth, v.polynomial(square, polynomials.COS), base)
        odd = v.w.let(f"trunc {v.i32} {quarter} to {v.i1}")
        value = v.select(odd, other, sine)
        sign = v.iop("shl", v.iop("and", quarter, v.ci(2)), v.ci(30))
        value = v.floats(v.iop("xor", v.bits(value), sign))
        return _large_angles(v, x, value, "cosf" if cosine else "sinf")

    return function


def _reduce_angle(v: Vec, x: str) -> tuple[str, str]:
    """Quarter turns and the rest, in double precision: exact enough up to 2¹⁵ · π/2."""
    lanes = v.lanes
    kind = vector(F64, lanes)
    wide = v.w.convert("fpext", x, F32, F64, lanes)
    turns = v.w.let(f"fmul {kind} {wide}, {v.w.constant(2 / math.pi, F64, lanes)}")
    limit = v.w.constant(1e9, F64, lanes)
    turns = v.w.intrinsic("maxnum", F64, lanes, turns, v.w.constant(-1e9, F64, lanes))
    turns = v.w.intrinsic("minnum", F64, lanes, turns, limit)
    whole = v.w.intrinsic("roundeven", F64, lanes, turns)
    rest = v.w.intrinsic("fma", F64, lanes, whole, v.w.constant(-math.pi / 2, F64, lanes), wide)
    low = v.w.constant(-6.123233995736766e-17, F64, lanes)  # π/2 minus its double
    rest = v.w.intrinsic("fma", F64, lanes, whole, low, rest)
    quarter = v.w.let(f"fptosi {kind} {whole} to {v.i32}")
    return quarter, v.w.convert("fptrunc", rest, F64, F32, lanes)


def _large_angles(v: Vec, x: str, value: str, function: str) -> str:
    """Replaces lanes whose argument is too large, or not a number, by the C library's answer."""
    w = v.w
    large = v.test("uge", v.call("fabs", x), v.c(51471.0))
    w.declare(function, f"declare float @{function}(float)")
    if not v.lanes:
        slot = w.alloca("float", 4)
        w.store(F32, value, slot)
        with w.when(large):
            w.store(F32, w.let(f"call float @{function}(float {x})"), slot)
        return w.load(F32, slot)
    some = w.let(f"bitcast {v.i1} {large} to i{v.lanes}")
    any_large = w.let(f"icmp ne i{v.lanes} {some}, 0")
    slots, given = w.alloca(v.f32), w.alloca(v.f32)
    flags = w.alloca(f"<{v.lanes} x i8>")
    w.store(F32, value, slots, v.lanes)
    with w.when(any_large):
        w.store(F32, x, given, v.lanes)
        w.store(I1, large, flags, v.lanes)
        with w.loop(v.lanes) as index:
            flag = w.load(I1, w.offset(I1, flags, index, I32))
            with w.when(flag):
                angle = w.load(F32, w.offset(F32, given, index, I32))
                exact = w.let(f"call float @{function}(float {angle})")
                w.store(F32, exact, w.offset(F32, slots, index, I32))
    return w.load(F32, slots, v.lanes)


def tanh(v: Vec, x: str) -> str:
    """A polynomial near 0, else 1 − 2/(e^2x + 1)."""
    size = v.call("fabs", x)
    grown = exp(v, v.op("fmul", size, v.c(2.0)))
    far = v.op("fsub", v.c(1.0), v.op("fdiv", v.c(2.0), v.op("fadd", grown, v.c(1.0))))
    square = v.op("fmul", x, x)
    cube = v.op("fmul", size, square)
    near = v.fma(cube, v.polynomial(square, polynomials.TANH), size)
    return v.call("copysign", v.select(v.less(size, v.c(0.625)), near, far), x)


def erf(v: Vec, x: str) -> str:
    """A polynomial in x² below 1, else 1 − e^(ln erfc x)."""
    size = v.call("fabs", x)
    near = v.fma(size, v.polynomial(v.op("fmul", x, x), polynomials.ERF), size)
    capped = v.clamp(size, 0.0, 4.0)
    tail = exp(v, v.polynomial(v.op("fsub", capped, v.c(2.0)), polynomials.LOG_ERFC))
    far = v.op("fsub", v.c(1.0), tail)
    return v.call("copysign", v.select(v.less(size, v.c(1.0)), near, far), x)


FUNCTIONS: dict[str, Callable[[Vec, str], str]] = {
    "exp": exp,
    "exp2": exp2,
    "log": log,
    "log2": log2,
    "sin": _trigonometric(False),
    "cos": _trigonometric(True),
    "tanh": tanh,
    "erf": erf,
}


def call(w: Writer, name: str, x: str, lanes: int) -> str:
    """`name(x)` for float32; the function is written to the module once a width."""
    kind = vector(F32, lanes)
    symbol = f"vec.{name}.{lanes}"
    if symbol not in w.functions:
        inner = w.inner()
        result = FUNCTIONS[name](Vec(inner, lanes), "%x")
        body = "\n".join([*inner.allocas, *inner.lines])
        w.functions[symbol] = (
            f"define internal {kind} @{symbol}({kind} %x) alwaysinline nounwind {{\n"
            f"entry:\n{body}\n  ret {kind} {result}\n}}"
        )
    return w.let(f"call {kind} @{symbol}({kind} {x})")
