"""Plain PyTorch that draws our random numbers, and the numbers themselves, written a second time.

The reference of `random.*` ops: Philox in NumPy's unsigned integers, whole tensors only; and a mode
under which eager torch takes them in the order of its draws.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def words(count: int, seed: int, step: int, draw: int) -> np.ndarray:
    """The words [count, 4], as uint32, of blocks 0 to `count`."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    blocks = np.arange(count, dtype=np.uint64)
    x = [blocks & low, blocks >> half, np.full_like(blocks, draw), np.full_like(blocks, step)]
    seed %= 2**64
    keys = [seed % 2**32, seed >> 32]
    for _ in range(10):
        a, b = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        k0, k1 = map(np.uint64, keys)
        x = [(b >> half) ^ x[1] ^ k0, b & low, (a >> half) ^ x[3] ^ k1, a & low]
        keys = [(keys[0] + 0x9E3779B9) % 2**32, (keys[1] + 0xBB67AE85) % 2**32]
    return np.stack(x, 1).astype(np.uint32)


def word(shape: Sequence[int], *draw: int) -> np.ndarray:
    """One word of 32 bits for each element."""
    count = int(np.prod(shape))
    return words(-(-count // 4), *draw).reshape(-1)[:count].reshape(shape)


def wide(shape: Sequence[int], *draw: int) -> np.ndarray:
    """64 bits for each element."""
    count = int(np.prod(shape))
    return words(-(-count // 2), *draw).view("<u8").reshape(-1)[:count].reshape(shape)


def uniform(shape: Sequence[int], dtype: torch.dtype, *draw: int) -> Tensor:
    if dtype == torch.float64:
        return torch.tensor((wide(shape, *draw) >> np.uint64(11)) / 2.0**53)
    digits = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}[dtype]
    return torch.tensor((word(shape, *draw) >> np.uint32(32 - digits)) / 2.0**digits).to(dtype)


def bernoulli(shape: Sequence[int], dtype: torch.dtype, p: float, *draw: int) -> Tensor:
    return torch.tensor(word(shape, *draw) / 2.0**32 < p).to(dtype)


def integer(shape: Sequence[int], dtype: torch.dtype, low: int, high: int, *draw: int) -> Tensor:
    picked = [low + (int(each) * (high - low) >> 64) for each in wide(shape, *draw).reshape(-1)]
    return torch.tensor(picked, dtype=torch.int64).reshape(tuple(shape)).to(dtype)


def inside(shape: Sequence[int], dtype: torch.dtype, *draw: int) -> np.ndarray:
    """In (0, 1)."""
    if dtype == torch.float64:
        return ((wide(shape, *draw) >> np.uint64(12)) + 0.5) / 2.0**52
    return (word(shape, *draw) + 0.5) / 2.0**32


def exponential(shape: Sequence[int], dtype: torch.dtype, *draw: int) -> Tensor:
    made = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.tensor(-np.log(inside(shape, dtype, *draw))).to(made).to(dtype)


def normal(shape: Sequence[int], dtype: torch.dtype, *draw: int) -> Tensor:
    """Elements 2 i and 2 i + 1 are a point of the plane in polar coordinates."""
    count = int(np.prod(shape))
    pairs = inside((count + count % 2,), dtype, *draw).reshape(-1, 2)
    points = np.sqrt(-2 * np.log(pairs[:, 0])) * np.exp(2j * np.pi * pairs[:, 1])
    flat = points.view(np.float64)[:count]
    made = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.tensor(flat.reshape(shape)).to(made).to(dtype)


class Drawing(TorchDispatchMode):
    """Eager torch with our numbers.

    Each state of torch's generator stands for a draw: where a checkpoint puts back the state to
    compute something again, the same numbers come again.
    """

    def __init__(self, seed: int, step: int) -> None:
        super().__init__()
        self._seed, self._step = seed, step
        self._draws: dict[bytes, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        rule = _RULES.get(str(func).removeprefix("aten.").removesuffix(".default"))
        if rule is None:
            return func(*args, **kwargs or {})
        state = torch.get_rng_state().numpy().tobytes()
        draw = self._draws.setdefault(state, len(self._draws))
        torch.empty(1).uniform_()  # the next state
        return rule((self._seed, self._step, draw), *args, **kwargs or {})


Draw = tuple[int, int, int]


def _made(kind: Callable[..., Tensor], *args: Any) -> Callable[..., Tensor]:
    def rule(draw: Draw, size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
        shape = size.shape if isinstance(size, Tensor) else size
        default = size.dtype if isinstance(size, Tensor) else torch.get_default_dtype()
        return kind(tuple(shape), dtype or default, *args, *draw)

    return rule


def _filled(kind: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rule(draw: Draw, x: Tensor, *args: Any, **_: Any) -> Tensor:
        return x.copy_(kind(tuple(x.shape), x.dtype, *args, *draw))

    return rule


def _uniform_between(shape: Any, dtype: Any, *args: Any) -> Tensor:
    low, high = [*args[:-3], 0.0, 1.0][:2] if len(args) == 3 else args[:2]
    return uniform(shape, dtype, *args[-3:]) * (high - low) + low


def _normal_around(shape: Any, dtype: Any, *args: Any) -> Tensor:
    mean, std = (0.0, 1.0) if len(args) == 3 else args[:2]
    return normal(shape, dtype, *args[-3:]) * std + mean


def _coins(shape: Any, dtype: Any, *args: Any) -> Tensor:
    return bernoulli(shape, dtype, 0.5 if len(args) == 3 else args[0], *args[-3:])


def _rrelu(draw: Draw, x: Tensor, noise: Tensor, low: float, high: float, *_: Any) -> Tensor:
    slope = uniform(tuple(x.shape), x.dtype, *draw) * (high - low) + low
    noise.copy_(torch.where(x <= 0, slope, 1.0))
    return x * noise


_RULES: dict[str, Callable[..., Any]] = {
    "rand": _made(uniform),
    "rand_like": _made(uniform),
    "randn": _made(normal),
    "randn_like": _made(normal),
    "uniform_": _filled(_uniform_between),
    "normal_": _filled(_normal_around),
    "exponential_": _filled(exponential),
    "bernoulli_.float": _filled(_coins),
    "rrelu_with_noise": _rrelu,
}
