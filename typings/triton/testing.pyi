from collections.abc import Callable, Sequence

do_bench: Callable[..., Sequence[float]]
