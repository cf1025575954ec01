"""Padding, pooling and resampling in one to three dims, and what moves pixels between channels.

Samples are free; channels too where the op keeps them apart. The image is whole, since windows
overlap.
"""

from collections.abc import Callable

from supernode.ir import HostType, Op, Type, Value
from supernode.ops.formula import Dims, Formula, bare, from_template, shape_of
from supernode.ops.row import Row, Split, linear_in, nonlinear, same, streaming, with_arg

Linear = Callable[[Op], tuple[tuple[int, ...], ...]]
_LINEAR = linear_in((0,))


def _leading(op: Op, free: int) -> Formula:
    """The first `free` dims of all values are the same factors, the others whole."""
    if free <= 0:
        return bare(op)

    def dims(value: Value) -> Dims:
        rank = len(shape_of(value))
        return tuple((f"i{k}",) if k < free else () for k in range(rank))

    sizes = {f"i{k}": size for k, size in enumerate(shape_of(op.outputs[0])[:free])}
    ins, outs = (tuple(map(dims, values)) for values in (op.inputs, op.outputs))
    return Formula(inputs=ins, outputs=outs, sizes=sizes)


def _image_of(dims: int) -> Callable[[Op], Formula]:
    """The last `dims` dims of the output are the image."""
    return lambda op: _leading(op, len(shape_of(op.outputs[0])) - dims)


def _batched_images(dims: int) -> Callable[[Op], Formula]:
    """As above; the random numbers of a single image have a batch, it has none."""

    def rule(op: Op) -> Formula:
        rank = len(shape_of(op.outputs[0]))
        return _leading(op, 2 if rank == dims + 2 else 0)

    return rule


def _samples(rank: int) -> Callable[[Op], Formula]:
    """Samples alone are free; an input of less than `rank` is one sample."""
    return lambda op: _leading(op, 1 if len(shape_of(op.inputs[0])) >= rank else 0)


def _local_size(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    """Argument 2 is the shape of what was resampled, samples and channels included."""
    (out,) = outputs
    assert not isinstance(out, HostType)
    return with_arg(op, 2, out.shape)


def _row(
    name: str,
    formula: Callable[[Op], Formula],
    note: str,
    linear: Linear = _LINEAR,
    local: Callable[[Op, Split, tuple[Type, ...]], Op] = same,
) -> Row:
    return Row(
        name=f"aten.{name}",
        formula=formula,
        cost=streaming(1),
        linear=linear,
        local=local,
        note=note,
    )


def _sampled(dims: int) -> Callable[[Op], Formula]:
    """An image read at places that are given for each sample, and alike for its channels."""
    image, grid = f"n c {'1 ' * dims}", f"n {'1 ' * (dims + 1)}"
    return lambda op: from_template(op, f"{image}, {grid} -> {image}")


def _sampled_backward(dims: int) -> Callable[[Op], Formula]:
    image, grid = f"n c {'1 ' * dims}", f"n {'1 ' * (dims + 1)}"

    def rule(op: Op) -> Formula:
        mask = op.args[6]
        assert isinstance(mask, tuple)
        asked = ", ".join(side for side, yes in zip((image, grid), mask, strict=True) if yes)
        return from_template(op, f"{image}, {image}, {grid} -> {asked}")

    return rule


def _local_grid(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    """Argument 1 is the shape of the images, samples first."""
    (out,) = outputs
    size = op.args[1]
    assert not isinstance(out, HostType)
    assert isinstance(size, tuple)
    return with_arg(op, 1, (out.shape[0], *size[1:]))


def _padding(dims: int) -> list[Row]:
    return [
        _row(f"{kind}_pad{dims}d{suffix}", _image_of(dims), note)
        for kind in ("reflection", "replication")
        for suffix, note in (
            ("", "each pixel outside is one inside"),
            ("_backward", "sums over the copies of a pixel"),
        )
    ]


def _largest(name: str, dims: int) -> list[Row]:
    images = _batched_images(dims) if "fractional" in name else _image_of(dims)
    return [
        _row(name, images, "places are counted within one image", nonlinear),
        _row(f"{name}_backward", images, "each gradient to where its maximum was"),
    ]


def _means(name: str, dims: int) -> list[Row]:
    return [
        _row(name, _image_of(dims), "means over windows"),
        _row(f"{name}_backward", _image_of(dims), "each gradient shared out over its window"),
    ]


def _resampled(name: str, dims: int) -> list[Row]:
    backward = f"{name}_backward"
    return [
        _row(name, _image_of(dims), "each pixel from those near it"),
        _row(backward, _image_of(dims), "sums over what came from a pixel", local=_local_size),
    ]


ROWS = [
    _row(
        "affine_grid_generator",
        lambda op: _leading(op, 1),
        "where each pixel of an image is read, by a map for each sample",
        local=_local_grid,
    ),
    *(
        # Linear in the image, but sums of parts cancel beyond rounding: it is added up before.
        _row(f"grid_sampler_{dims}d", _sampled(dims), "an image read at given places", nonlinear)
        for dims in (2, 3)
    ),
    *(
        _row(
            f"grid_sampler_{dims}d_backward",
            _sampled_backward(dims),
            "of the image, and of the places: a sum over its channels",
        )
        for dims in (2, 3)
    ),
    *(row for dims in (1, 2, 3) for row in _padding(dims)),
    *_largest("adaptive_max_pool2d", 2),
    *_largest("adaptive_max_pool3d", 3),
    *_largest("fractional_max_pool2d", 2),
    *_largest("fractional_max_pool3d", 3),
    *_largest("max_pool3d_with_indices", 3),
    *_means("avg_pool3d", 3),
    *_means("_adaptive_avg_pool3d", 3),
    *_resampled("upsample_nearest1d", 1),
    *_resampled("upsample_linear1d", 1),
    *_resampled("upsample_bicubic2d", 2),
    *_resampled("_upsample_nearest_exact2d", 2),
    *_resampled("upsample_nearest3d", 3),
    *_resampled("upsample_trilinear3d", 3),
    _row("max_unpool2d", _image_of(2), "each element to its place in its image"),
    _row("max_unpool3d", _image_of(3), "each element to its place in its image"),
    _row("pixel_shuffle", _image_of(3), "channels become pixels"),
    _row("pixel_unshuffle", _image_of(3), "pixels become channels"),
    _row("channel_shuffle", _samples(3), "channels change places"),
    _row("im2col", _samples(4), "windows of the image as columns"),
    _row("col2im", _samples(3), "sums over the windows that a pixel is in"),
]
