"""Pooling and resampling: samples and channels are free, images whole, since windows overlap."""

from collections.abc import Callable

from supernode.ir import HostType, Op, Type
from supernode.ops.formula import Formula, alike_but, shape_of
from supernode.ops.row import Row, Split, linear_in, nonlinear, same, streaming, with_arg

Linear = Callable[[Op], tuple[tuple[int, ...], ...]]
Local = Callable[[Op, Split, tuple[Type, ...]], Op]


def _images(op: Op) -> Formula:
    """The last two dims are the image."""
    rank = len(shape_of(op.outputs[0]))
    return alike_but(op, (rank - 2, rank - 1))


def _local_size(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    """Argument 2 is the shape of what was resampled, samples and channels included."""
    (out,) = outputs
    assert not isinstance(out, HostType)
    return with_arg(op, 2, out.shape)


_LINEAR = linear_in((0,))


def _row(name: str, note: str, linear: Linear = _LINEAR, local: Local = same) -> Row:
    return Row(
        name=f"aten.{name}",
        formula=_images,
        cost=streaming(1),
        linear=linear,
        local=local,
        note=note,
    )


ROWS = [
    _row("max_pool2d_with_indices", "places are counted within one image", nonlinear),
    _row("max_pool2d_with_indices_backward", "each gradient to where its maximum was"),
    _row("avg_pool2d", "means over windows"),
    _row("avg_pool2d_backward", "each gradient shared out over its window"),
    _row("_adaptive_avg_pool2d", "means over windows"),
    _row("_adaptive_avg_pool2d_backward", "each gradient shared out over its window"),
    _row("upsample_nearest2d", "each pixel from the nearest"),
    _row("upsample_nearest2d_backward", "sums over what came from a pixel", local=_local_size),
    _row("upsample_bilinear2d", "each pixel from the nearest four"),
    _row("upsample_bilinear2d_backward", "sums over what came from a pixel", local=_local_size),
]
