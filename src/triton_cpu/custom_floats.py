"""`fp8e4b15`, a float that Triton's frontend keeps as a byte: conversions to and from float16.

It has the exponent bias of float16 and 3 bits of mantissa, and neither infinities nor NaN, so its
pattern is that of a float16 without the highest exponent bit and the 7 lowest mantissa bits.
"""

from typing import Any

from triton.language import core

_LARGEST = 0x7F << 7  # 1.875, as the magnitude bits of a float16


@core.builtin
def convert(arg: Any, dst_ty: Any, fp_downcast_rounding: Any = None, _semantic: Any = None) -> Any:
    """`arg` as a `dst_ty`; one of the two is fp8e4b15."""
    if arg.type.scalar.is_fp8e4b15():
        byte = arg.to(core.uint8, bitcast=True, _semantic=_semantic)
        bits = byte.to(core.uint16, _semantic=_semantic)
        sign = _shift_left(_and(bits, 0x80, _semantic), 8, _semantic)
        rest = _shift_left(_and(bits, 0x7F, _semantic), 7, _semantic)
        half = _semantic.or_(sign, rest).to(core.float16, bitcast=True, _semantic=_semantic)
        return half.to(dst_ty.scalar, _semantic=_semantic)
    half = arg
    if not arg.type.scalar.is_fp16():
        half = arg.to(core.float16, _semantic=_semantic)
    bits = half.to(core.uint16, bitcast=True, _semantic=_semantic)
    size = _and(bits, 0x7FFF, _semantic)
    tie = _and(_shift_right(size, 7, _semantic), 1, _semantic)
    rounded = _semantic.add(_semantic.add(size, 0x3F, False), tie, False)
    over = _semantic.greater_than(rounded, _constant(_LARGEST, rounded, _semantic))
    rounded = _semantic.where(over, _constant(_LARGEST, rounded, _semantic), rounded)
    sign = _and(_shift_right(bits, 8, _semantic), 0x80, _semantic)
    byte = _semantic.or_(_shift_right(rounded, 7, _semantic), sign)
    return byte.to(core.uint8, _semantic=_semantic).to(
        dst_ty.scalar, bitcast=True, _semantic=_semantic
    )


def _constant(value: int, like: Any, semantic: Any) -> Any:
    scalar = semantic.scalar_constant(value, like.type.scalar)
    return semantic.broadcast_impl_value(like, scalar)[1]


def _and(a: Any, value: int, semantic: Any) -> Any:
    return semantic.and_(a, _constant(value, a, semantic))


def _shift_left(a: Any, value: int, semantic: Any) -> Any:
    return semantic.shl(a, _constant(value, a, semantic))


def _shift_right(a: Any, value: int, semantic: Any) -> Any:
    return semantic.lshr(a, _constant(value, a, semantic))
