"""What torch's allocator hands out on processors, as its profiler sees it."""

from typing import Self

from torch.autograd.profiler import profile, record_function

_MEMORY, _MARK = "[memory]", "supernode mark"


class Allocations:
    """A `MemoryWatch`: every block of a tensor, workspace of torch's own kernels included.

    What libraries below torch take by themselves is not seen. The profiler takes microseconds for
    each op and each block, so the ops of such a step last longer.
    """

    def __init__(self) -> None:
        # Not torch.profiler's, whose start imports the compiler: 1.3 s.
        self._profile = profile(profile_memory=True)

    def __enter__(self) -> Self:
        self._profile.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._profile.__exit__(None, None, None)

    def mark(self) -> None:
        """Ends a span and begins the next."""
        with record_function(_MARK):
            pass

    @property
    def peaks(self) -> list[int]:
        """The most that was in use at any time of each span."""
        results = self._profile.kineto_results
        assert results is not None
        events: list[tuple[int, int | None]] = []
        for event in results.events():
            if event.name() == _MARK:
                events.append((event.start_ns(), None))
            elif event.name() == _MEMORY:
                # torch's stubs leave it out.
                size_bytes = event.nbytes()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
                events.append((event.start_ns(), int(size_bytes)))  # pyright: ignore[reportUnknownArgumentType]
        live = most = 0
        found: list[int] = []
        for _, size_bytes in sorted(events, key=lambda event: event[0]):
            if size_bytes is None:
                found.append(most)
                most = live
            else:
                live += size_bytes
                most = max(most, live)
        return found
