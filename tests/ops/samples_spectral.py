"""Samples of Fourier transforms and complex numbers, windows, bags, normed weights and grids."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ops.calls import Sample, call
from ops.numbers import f, g, ids


def _complex(*shape: int) -> Tensor:
    return torch.complex(f(*shape), g(*shape))


def _transforms() -> Iterator[Sample]:
    for norm, dims in ((0, [2]), (2, [1, 2])):
        yield call("aten._fft_r2c", f(4, 6, 8), dims, norm, True)
        yield call("aten._fft_r2c", f(4, 6, 8), dims, norm, False)
        yield call("aten._fft_c2r", _complex(4, 6, 5), dims, norm, 8)
        for forward in (True, False):
            yield call("aten._fft_c2c", _complex(4, 6, 8), dims, norm, forward)


def _numbers() -> Iterator[Sample]:
    yield call("aten.complex", f(4, 8), g(4, 8))
    yield call("aten.polar", g(4, 8), f(4, 8))
    yield call("aten.view_as_real", _complex(4, 8))
    yield call("aten.view_as_complex", f(4, 8, 2))
    yield call("aten.angle", _complex(4, 8))
    yield call("aten.conj_physical", _complex(4, 8))
    yield call("aten._conj", _complex(4, 8))
    yield call("aten._neg_view", f(4, 8))


def _windows() -> Iterator[Sample]:
    x = f(4, 8, 6)
    for dim, size, step in ((1, 4, 4), (-1, 2, 2), (1, 4, 2), (1, 3, 3), (0, 4, 4)):
        forward = call("aten.unfold", x, dim, size, step)
        yield forward
        grad = g(*forward.outputs[0].shape)
        yield call("aten.unfold_backward", grad, list(x.shape), dim, size, step)


def _weights() -> Iterator[Sample]:
    name = "aten._weight_norm_interface"
    for v, norms, dim in (
        (f(4, 8), g(4, 1), 0),
        (f(4, 6, 3), g(4, 1, 1), 0),
        (f(4, 6, 8), g(1, 1, 8), 2),
    ):
        forward = call(name, v, norms, dim)
        yield forward
        yield call(f"{name}_backward", g(*v.shape), v, norms, forward.outputs[1], dim)


def _bags() -> Iterator[Sample]:
    table, places, starts = f(12, 8), ids(10, below=12), torch.tensor([0, 3, 3, 7])
    for mode in (0, 1, 2):
        for weights in (None, g(10)) if mode == 0 else (None,):
            rest = False, mode, False, weights
            forward = call("aten._embedding_bag", table, places, starts, *rest)
            yield forward
            grad, known = g(4, 8), forward.outputs[1:]
            if weights is None:
                args = (grad, places, starts, *known, 12, *rest)
                yield call("aten._embedding_bag_backward", *args)


def _grids() -> Iterator[Sample]:
    for shape in ((2, 4, 6, 4), (2, 4, 2, 6, 4)):
        dims = len(shape) - 2
        maps = f(2, dims, dims + 1)
        forward = call("aten.affine_grid_generator", maps, list(shape), False)
        yield forward
        (grid,) = forward.outputs
        name, x = f"aten.grid_sampler_{dims}d", g(*shape)
        yield call(name, x, grid, 0, 0, False)
        for asked in ([True, True], [False, True]):
            yield call(f"{name}_backward", f(*shape), x, grid, 0, 0, False, asked)


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    _transforms,
    _numbers,
    _windows,
    _weights,
    _bags,
    _grids,
)
