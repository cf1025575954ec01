"""What kernels take while they run, beside operands and results: torch's, on processors.

Convolutions alone matter: they copy what they read into blocks of 16 channels, compute, and copy
back. Others stay below a hundredth of what a step holds (attention: a tile for each thread).

**Source:** measured with torch 2.13 (oneDNN 3, AVX-512), 2026-11-27, by torch's profiler over 45
shapes: right to the byte for most; where threads add up gradients of few weights, up to 280 kB less
than was measured. Without AVX-512 blocks have 8 channels.
"""

import math

from supernode.ir import Op, Value

_BLOCK = 16
_FEW = 3
"""Up to so many channels are read where they lie, as those of a picture."""
_NARROW = 3
"""Above this width the gradient of a weight with a channel for each group is found as if its groups
had a block of channels each, where `x` lies with its channels side by side, as behind the permutes
of ConvNeXt. Where it does not, that is too much."""
_ALONE_NUMEL = 20480
"""Up to this size one sample is unfolded into columns and multiplied as a matrix, unless it has
groups or a kernel above 3 x 3."""


def workspace_bytes(op: Op) -> int:
    """The most that `op` holds at a time beside its operands and results."""
    if op.name == "aten.convolution":
        x, w = op.inputs[0], op.inputs[1]
        return _forward(op, x, w, op.outputs[0])
    if op.name == "aten.convolution_backward":
        y, x, w = op.inputs[:3]
        return _backward(op, x, w, y)
    return 0


def _forward(op: Op, x: Value, w: Value, y: Value) -> int:
    if _unfolds(op, x, w):
        return _columns_bytes(op, x, w, y)
    read = _read(w) + (_padded(x) if _channels(x) >= _BLOCK else 0)
    return max(read + _padded(y) - y.type.size_bytes, _padded(y))


def _backward(op: Op, x: Value, w: Value, y: Value) -> int:
    if _unfolds(op, x, w):
        return _columns_bytes(op, x, w, y)
    into_x = into_w = 0
    asked, strides = op.args[-1], op.args[4]
    assert isinstance(asked, tuple)
    assert isinstance(strides, tuple)
    given, made = x.type.size_bytes, w.type.size_bytes
    reads, turned = _padded(y), made if _by_channel(op, x) else _padded(w)
    if asked[0] and any(stride != 1 for stride in strides):
        into_x = max(reads + turned, 2 * given) - made
    elif asked[0]:
        into_x = max(reads + turned - made, given) + _padded(x) - given
    if asked[1] and _by_channel(op, x) and min(w.tensor.shape[2:]) > _NARROW:
        into_w = made * (1 + _BLOCK * _BLOCK)
    elif asked[1] and not _by_channel(op, x):
        if _channels(x) > _FEW:
            reads += _padded(x) if _channels(x) >= _BLOCK else given
        into_w = max(reads + _read(w) - made, _read(w))
    return max(into_x, into_w)


def _unfolds(op: Op, x: Value, w: Value) -> bool:
    batch, wide = x.tensor.shape[0], min(w.tensor.shape[2:])
    return batch == 1 and _groups(op) == 1 and wide <= 3 and x.tensor.numel <= _ALONE_NUMEL


def _columns_bytes(op: Op, x: Value, w: Value, y: Value) -> int:
    """A column for each place of the result; a kernel of one element that skips none reads `x`."""
    taps = math.prod(w.tensor.shape[2:])
    if taps == 1 and x.tensor.shape[2:] == y.tensor.shape[2:]:
        return 0
    places = y.tensor.numel // y.tensor.shape[1]
    return x.type.size_bytes // x.tensor.numel * places * _channels(x) * taps


def _groups(op: Op) -> int:
    found = op.args[8] if op.name == "aten.convolution" else op.args[9]
    assert isinstance(found, int)
    return found


def _by_channel(op: Op, x: Value) -> bool:
    return _groups(op) == _channels(x)


def _channels(value: Value) -> int:
    return value.tensor.shape[1]


def _padded(value: Value) -> int:
    """Its bytes in whole blocks of channels."""
    return value.type.size_bytes // _channels(value) * _whole(_channels(value))


def _read(w: Value) -> int:
    """The bytes of a weight where its results are in blocks; few channels it reads are in none."""
    out, into = w.tensor.shape[:2]
    size_bytes = w.type.size_bytes if into < _BLOCK else _padded(w)
    return size_bytes // out * _whole(out)


def _whole(channels: int) -> int:
    return channels + -channels % _BLOCK
