"""What the launches of a function compute and move, counted in Triton's own form of its kernels.

The function is run on tensors without data, its launches are noted instead of made, and each kernel
is compiled as far as Triton's own form. That is followed program by program with the numbers of the
launch: loops and branches are taken as they would be, tiles are only counted.
"""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from supernode.errors import InputError
from supernode.kernels.follow import Follower, Unknown
from supernode.kernels.ttir import functions

_FIX = "give sn.kernel flops= and bytes=, functions of the sizes of its factors"
SAMPLED = 64
"""So many programs of a grid are followed, spread evenly over it."""
_PLACES = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
"""What a function may call beside its kernels: memory that nobody writes; and views."""
_FILLS = frozenset({"zeros", "zeros_like", "new_zeros", "ones", "full", "full_like", "new_full"})


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with what it was launched with."""

    kernel: Any
    grid: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(slots=True)
class Count:
    """FLOP, those of matrix products among them, and bytes."""

    flops: float = 0.0
    products: float = 0.0
    bytes_read: float = 0.0
    bytes_written: float = 0.0


def counted(name: str, call: Callable[[], Any]) -> Count:
    """What `call` takes, which calls the function of the kernel `name` on meta tensors.

    What a program reads again is in a cache: of a tensor at most its size is read.

    Raises:
        InputError: it can't be counted; the error says why.
    """
    try:
        jit = import_module("triton.runtime.jit")
        tuner = import_module("triton.runtime.autotuner")
    except ImportError as error:
        raise _uncounted(
            name, "triton is not installed", "pip install 'supernode[kernels]'"
        ) from error
    total = Count()
    launches: list[Launch] = []
    watch = _Watch(total)
    try:
        with (
            _noting(jit.JITFunction, tuner.Autotuner, launches) as run,
            watch,
            torch.device("meta"),
        ):
            call()
        for launch in launches:
            _add(total, launch, run)
    except Unknown as error:
        raise _uncounted(name, str(error)) from error
    except Exception as error:
        raise _uncounted(name, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if not launches:
        raise _uncounted(name, "it launches no Triton kernel")
    return total


def _uncounted(name: str, why: str, fix: str = _FIX) -> InputError:
    return InputError(f"the cost of the kernel {name} can't be counted: {why}", fix=fix)


@contextmanager
def _noting(jit: Any, tuner: Any, launches: list[Launch]) -> Generator[Callable[..., Any]]:
    """Notes launches instead of making them; gives what makes them. A tuner takes its first."""
    plain, tuned = jit.run, tuner.run

    def note(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append(Launch(kernel, grid, args, kwargs))

    def first(tuner: Any, *args: Any, **kwargs: Any) -> Any:
        return tuner.fn.run(*args, **{**kwargs, **tuner.configs[0].all_kwargs()})

    jit.run, tuner.run = note, first
    try:
        yield plain
    finally:
        jit.run, tuner.run = plain, tuned


class _Watch(TorchDispatchMode):
    """Lets a function make and view tensors, and counts what fills them; all else is unknown."""

    def __init__(self, total: Count) -> None:
        super().__init__()
        self._total = total

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        short = func.overloadpacket.__name__
        if short in _FILLS:
            self._total.bytes_written += out.nbytes
        elif short in ("zero_", "fill_"):
            self._total.bytes_written += args[0].nbytes
        elif short not in _PLACES and not func.is_view:
            raise Unknown(f"it calls {func} beside its kernels")
        return out


def _add(total: Count, launch: Launch, run: Callable[..., Any]) -> None:
    kernel = run(launch.kernel, *launch.args, grid=launch.grid, warmup=True, **launch.kwargs)
    given = _given(launch)
    types: dict[str, str] = kernel.src.signature
    named = [name for name, kind in types.items() if kind != "constexpr"]
    module = functions(kernel.asm["ttir"])
    main = next(iter(module.values()))
    if len(named) != len(main.args):
        raise Unknown("an argument is passed in several parts (a tuple or a descriptor)")
    values = {arg: given[name] for name, (arg, _) in zip(named, main.args, strict=True)}
    grid = launch.grid if isinstance(launch.grid, tuple | list) else launch.grid(given)
    dims: tuple[int, ...] = (*grid, 1, 1)[:3]
    programs = math.prod(dims)
    numbers = {arg: value for arg, value in values.items() if isinstance(value, int | float)}
    followed = Follower(module, main, numbers)
    for number in sampled(programs):
        place = (number % dims[0], number // dims[0] % dims[1], number // (dims[0] * dims[1]))
        followed.program(place, dims, programs / min(programs, SAMPLED))
    total.flops += followed.flops
    total.products += followed.products
    total.bytes_read += sum(min(n, _size(values[arg])) for arg, n in followed.read.items())
    total.bytes_written += sum(min(n, _size(values[arg])) for arg, n in followed.written.items())


def sampled(programs: int) -> list[int]:
    """All of few programs; of many, some that no stride of the grid has in common."""
    if programs <= SAMPLED:
        return list(range(programs))
    step = round(programs * (math.sqrt(5) - 1) / 2)
    while math.gcd(step, programs) != 1:
        step += 1
    return [i * step % programs for i in range(SAMPLED)]


def _given(launch: Launch) -> dict[str, Any]:
    """The arguments of a launch by name, defaults included."""
    parameters = launch.kernel.signature.parameters
    named = dict(zip(parameters, launch.args, strict=False))
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return {**defaults, **named, **launch.kwargs}


def _size(tensor: Any) -> float:
    return float(tensor.nbytes) if isinstance(tensor, Tensor) else math.inf
