"""The driver Triton finds through the entry point `triton.backends`: where kernels run."""

import functools
import importlib
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from .emit.kernel import SYMBOL
from .runtime import host, numpy_arrays, timing
from .runtime.codegen import Loaded, provide_halves
from .runtime.launch import attach, check, launcher

MAX_THREADS = 1 << 20
DEVICE = -1
"""This machine's number, as torch has it; GPUs count from 0. Triton keeps a kernel's code by it."""


class Binary(NamedTuple):
    """What Triton keeps of loaded code: the module, the function, and three numbers of a GPU (the
    registers of a thread are divided by, so they are not 0)."""

    module: Loaded
    function: int
    registers: int = 32
    spills: int = 0
    max_threads: int = MAX_THREADS


class Utilities:
    """Loads code, and answers questions meant for a GPU."""

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> Binary:
        """Object code in memory, and the address of its kernel."""
        check(kernel)
        provide_halves()
        loaded = Loaded(kernel)
        function = loaded.address(SYMBOL)
        attach(loaded, function)
        return Binary(loaded, function)

    def unload_module(self, module: Loaded) -> None:
        """The module goes when Triton drops it."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Sizes that Triton's tutorials and heuristics ask for."""
        cores = os.cpu_count() or 1
        return {
            "max_shared_mem": 1 << 30,
            "multiprocessor_count": cores,
            "max_num_regs": 1 << 16,
            "warpSize": 1,
            "sm_clock_rate": 0,
            "mem_clock_rate": 0,
            "mem_bus_width": 0,
        }


class Event:
    """A point in time, with the interface of `torch.cuda.Event`."""

    def __init__(self, enable_timing: bool = True) -> None:
        self._time_s = 0.0

    def record(self, stream: Any = None) -> None:
        """Now."""
        self._time_s = time.perf_counter()

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds from this event to `end`."""
        return (end._time_s - self._time_s) * 1e3

    def synchronize(self) -> None:
        """Launches return when they are done."""


class DeviceInterface:
    """What `triton.testing` needs of `torch.cuda`."""

    Event = Event

    def synchronize(self, device: Any = None) -> None:
        """Launches return when they are done."""

    def current_device(self) -> int:
        """There is one."""
        return DEVICE

    def set_device(self, device: Any) -> None:
        """There is one."""


class CpuDriver(DriverBase):
    """Runs kernels on this machine's CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.utils = Utilities()
        self.launcher_cls = launcher
        numpy_arrays.install()

    @staticmethod
    def is_active() -> bool:
        """Whether Triton should choose this driver: no GPU is there, or it was asked for."""
        chosen = os.environ.get("TRITON_DEFAULT_BACKEND")
        return chosen == "cpu" if chosen else not _other_driver_active()

    def map_python_to_cpp_type(self, ty: str) -> str:
        """No C++ is written here."""
        return ty

    def get_current_target(self) -> GPUTarget:
        """The CPU, as Triton names targets."""
        return _target()

    def get_active_torch_device(self) -> Any:
        """`torch.device("cpu")`."""
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> DeviceInterface:
        """Timing for `do_bench`."""
        return DeviceInterface()

    def get_current_device(self) -> int:
        """There is one."""
        return DEVICE

    def set_current_device(self, device: int) -> None:
        """There is one."""

    def get_current_stream(self, device: int) -> int:
        """There is one."""
        return 0

    def get_benchmarker(self) -> Callable[..., Any]:
        """What `triton.autotune` times with."""
        return timing.do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        """Memory to write between runs, so that none finds its data in the caches."""
        import torch

        return torch.empty(timing.CACHE_FLUSH_BYTES // 4, dtype=torch.int, device="cpu")

    def clear_cache(self, cache: Any) -> None:
        """Writes that memory."""
        cache.zero_()


@functools.cache
def _target() -> GPUTarget:
    return GPUTarget("cpu", host.cpu_name(), 1)


@functools.cache
def _other_driver_active() -> bool:
    """Whether the driver of a GPU says it is active."""
    backends = sys.modules["triton.backends"].backends
    return any(name != "cpu" and backend.driver.is_active() for name, backend in backends.items())


def _withdraw_others() -> None:
    """No other driver is active from now on: Triton 3.6 refuses to choose among several, and does
    not know the variable by which it was told."""
    for other in entry_points(group="triton.backends"):
        if other.name != "cpu":
            module = importlib.import_module(f"{other.value}.driver")
            for kind in vars(module).values():
                if isinstance(kind, type) and "is_active" in vars(kind) and kind is not DriverBase:
                    kind.is_active = staticmethod(lambda: False)


if os.environ.get("TRITON_DEFAULT_BACKEND") == "cpu":
    _withdraw_others()
