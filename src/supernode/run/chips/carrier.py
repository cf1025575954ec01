"""Copies between a processor chip's memory and the places where values live, beside its steps."""

import ctypes
from collections.abc import Mapping
from queue import SimpleQueue
from threading import Lock, Thread

import torch
from torch import Tensor

from supernode.kernels import is_dense


class Carrier:
    """A thread that copies in the order in which copies were begun.

    `slots` are bytes for what a step stores and fetches again, by key. A slot may serve several
    keys: what is begun later is copied later.
    """

    def __init__(self, slots: Mapping[int, Tensor]) -> None:
        self._slots = slots
        self._begun: dict[int, Lock] = {}
        self._queue: SimpleQueue[tuple[Tensor, Tensor, Lock] | None] = SimpleQueue()
        Thread(target=self._run, daemon=True, name="supernode-carrier").start()

    def begin(self) -> None:
        """Before a step: what one that failed has left is copied and forgotten."""
        for key in list(self._begun):
            self.wait(key)

    def fetch(self, source: Tensor, key: int) -> Tensor:
        """See `kernels.surroundings.Places`. The copy has the strides of the source."""
        out = torch.empty_like(source)
        self._start(key, source, out)
        return out

    def store(self, x: Tensor, key: int, out: Tensor | None = None) -> Tensor:
        """See `kernels.surroundings.Places`. What goes to a slot keeps its strides."""
        if out is None:
            x = x if is_dense(x) else x.contiguous()
            bytes_ = self._slots[key][: x.nbytes]
            out = bytes_.view(x.dtype).as_strided(x.shape, x.stride())
        else:
            x = x.contiguous()
        self._start(key, x, out)
        return out

    def wait(self, key: int) -> None:
        """See `kernels.surroundings.Places`."""
        self._begun.pop(key).acquire()

    def _start(self, key: int, source: Tensor, out: Tensor) -> None:
        lock = Lock()
        lock.acquire()
        self._begun[key] = lock
        self._queue.put((source, out, lock))

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            source, out, lock = job
            ctypes.memmove(out.data_ptr(), source.data_ptr(), source.nbytes)
            # The step may overwrite the memory of `source` as soon as it knows.
            del job, source, out
            lock.release()
