"""Launches a compiled kernel: packs the arguments, runs the grid, reports faults."""

import ctypes
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

from ..emit.fault import ANY
from ..errors import ArgumentError, CompileError, KernelAssertion
from . import arguments
from .codegen import Loaded
from .numpy_arrays import place_of
from .pool import CALLER_STACK_BYTES, LAUNCH_FORMAT, asked_threads, pool, thread_count

_FAULT = struct.Struct("<6iq")  # taken, site, three program ids, size, detail: see emit.fault

_GRID = struct.Struct("q3i")


_current = threading.local()  # the launcher this thread made last


def attach(code: Loaded, function: int) -> None:
    """Tells the launcher this thread has just made where its code is. Triton makes a launcher, lets
    other threads see it, and only then loads the code; two threads may do so for one kernel. Each
    launcher therefore runs, and keeps, the code that was loaded for it."""
    launcher: Launcher | None = getattr(_current, "launcher", None)
    if launcher is not None:
        launcher.code, launcher.function = code, function
        launcher.loaded.set()
        _current.launcher = None


def check(code: bytes) -> None:
    """Raises if this isn't the code compiled for the launcher that this thread has just made."""
    launcher: Launcher | None = getattr(_current, "launcher", None)
    if launcher is not None and zlib.crc32(code) != launcher.checksum:
        raise CompileError(
            "The machine code in Triton's cache is damaged.",
            where=launcher.where,
            fix="empty the cache: TRITON_CACHE_DIR, or ~/.triton/cache",
        )


def launcher(src: Any, metadata: Any) -> Callable[..., None]:
    """What Triton calls for each launch of one kernel: a method, which is faster to call than an
    object."""
    return Launcher(src, metadata).launch


class Launcher:
    """Launches of one kernel."""

    def __init__(self, src: Any, metadata: Any) -> None:
        self.code: Loaded | None = None  # kept alive while a launch is on its way
        self.function = 0
        self.loaded = threading.Event()
        _current.launcher = self
        self.name: str = metadata.name
        self.checksum: int = metadata.checksum
        self.sites: list[dict[str, Any]] = metadata.sites
        self.sanitize: bool = metadata.sanitize
        self.threads: int = metadata.num_threads or asked_threads()
        self.aside = int(metadata.scratch_bytes > CALLER_STACK_BYTES)
        signature = arguments.flatten(list(src.signature.values()))
        self.paths = [path for path, _ in signature]
        self.descriptors = [kind.startswith("tensordesc") for _, kind in signature]
        self.kinds: list[str] = metadata.arguments
        self.names = names = _names(src, len(self.kinds))
        self.where = place_of(getattr(src, "fn", None), self.name)
        self.convert: list[Callable[[Any], Any]] = [
            arguments.pointer_of(number in metadata.written, names[number])
            if kind == "ptr"
            else arguments.scalar_of(kind)
            for number, kind in enumerate(self.kinds)
        ]
        slots = "Q" + "".join(arguments.FORMATS[kind] for kind in self.kinds)
        ranges = "QQ" * self.kinds.count("ptr") if self.sanitize else ""
        self.pack = struct.Struct(f"<{LAUNCH_FORMAT}{slots}{ranges}").pack
        self.pool = pool()
        self.run = self.pool.launch
        plain = not self.sanitize and not any(self.descriptors)
        self.message = self._in_one_step() if plain else self._step_by_step

    def launch(
        self,
        grid0: int,
        grid1: int,
        grid2: int,
        stream: int,
        function: int | None,
        packed_metadata: Any,
        launch_metadata: Any,
        enter_hook: Any,
        exit_hook: Any,
        *args: Any,
    ) -> None:
        """Runs the grid; the parameters are those that Triton gives."""
        programs = grid0 * grid1 * grid2
        if programs <= 0:
            return
        if enter_hook is not None:
            enter_hook(launch_metadata)
        if not self.function:
            self.loaded.wait()
        threads = 1 if programs == 1 else min(self.threads or thread_count(), programs)
        aside = self.aside
        fault = ctypes.create_string_buffer(_FAULT.size) if self.sites else None
        record = ctypes.addressof(fault) if fault is not None else 0
        head = self.function, programs, grid0, grid1, grid2, threads, aside, 0, record
        try:
            message = self.message(head, args)
        except ArgumentError as error:
            raise ArgumentError(error.wrong, where=self.where, fix=error.fix) from None
        except (struct.error, OverflowError):  # numbers that do not fit as they are
            message = self._step_by_step(head, args)
        if threads > 1 or aside:
            self.pool.ensure(threads - 1 + aside)
        self.run(message)
        if fault is not None and fault.raw[0]:
            self._raise(fault.raw, self._values(args))
        if exit_hook is not None:
            exit_hook(launch_metadata)

    def _in_one_step(self) -> Callable[..., bytes]:
        """What the pool is given, written out for these arguments: launches spend little else."""
        names = {f"convert{number}": one for number, one in enumerate(self.convert)}
        slots: list[str] = []
        for number, (path, kind) in enumerate(zip(self.paths, self.kinds, strict=True)):
            value = "args" + "".join(f"[{part}]" for part in path)
            slots.append(f"convert{number}({value})" if kind in ("ptr", "bf16") else value)
        return eval(
            f"lambda head, args: pack(*head, {', '.join(slots)})", names | {"pack": self.pack}
        )

    def _step_by_step(self, head: tuple[int, ...], args: tuple[Any, ...]) -> bytes:
        """The same for descriptors, the ranges of checked memory, and numbers of any size."""
        _, programs, *grid = head[:5]
        try:
            _GRID.pack(programs, *grid)
        except struct.error:
            raise ArgumentError(
                f"The grid is {tuple(grid)}; its sizes are whole numbers below 2^31.",
                where=self.where,
            ) from None
        values = self._values(args)
        packed = [one(value) for one, value in zip(self.convert, values, strict=True)]
        if self.sanitize:
            for kind, value in zip(self.kinds, values, strict=True):
                if kind == "ptr":
                    packed += arguments.memory_range(value)
        return self.pack(*head, *packed)

    def _values(self, args: tuple[Any, ...]) -> list[Any]:
        """The arguments the kernel reads, in its order."""
        values: list[Any] = []
        for path, is_descriptor in zip(self.paths, self.descriptors, strict=True):
            value = _at(args, path)
            values += _decompose(value) if is_descriptor else [value]
        return values

    def _raise(self, raw: bytes, values: list[Any]) -> None:
        _, number, x, y, z, size, detail = _FAULT.unpack(raw)
        site = self.sites[number]
        text = str(site["message"])
        if size:
            text = f"{text} {self._place(site['argument'], detail % (1 << 64), size, values)}"
        raise KernelAssertion(
            f"{self.name}, program ({x}, {y}, {z}): {text}.",
            where=f"{site['file']}:{site['line']}",
        )

    def _place(self, argument: int, address: int, size: int, values: list[Any]) -> str:
        """Where an access of `size` bytes is, seen from the argument it is outside of."""
        if argument == ANY:
            return f"at {address:#x}, outside of every argument"
        start = self.convert[argument](values[argument])
        first, last = arguments.memory_range(values[argument])
        return (
            f"of element {(address - start) // size} of {self.names[argument]}, outside of its"
            f" memory: byte {address - first} of {last - first}"
        )


def _at(args: Any, path: tuple[int, ...]) -> Any:
    for number in path:
        args = args[number]
    return args


def _names(src: Any, count: int) -> list[str]:
    """The names of the parameters, where each is one argument; else their numbers."""
    names = [name for name, kind in src.signature.items() if kind != "constexpr"]
    return (
        [str(name) for name in names]
        if len(names) == count
        else [str(number) for number in range(count)]
    )


def _decompose(descriptor: Any) -> list[Any]:
    """A host tensor descriptor as the arguments the frontend makes of it."""
    try:
        from triton.backends.driver import decompose_descriptor
    except ImportError:  # before 3.9
        shape, strides = descriptor.shape, descriptor.strides
        padding = descriptor.padding == "nan"
        return [descriptor.base, *shape, *strides, padding, *shape, *strides]
    return list(decompose_descriptor(descriptor))
