"""GeneratedStep: a Program as a Python function, its source, its traces and its errors."""

import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from supernode.errors import ChipFailed, SupernodeError
from supernode.ir import CALL, Op, Program, print_typed
from supernode.kernels.writer import Chip, Writer
from supernode.plan.inplace import destinations, rewrites

Number = Tensor | float
_NUMBER = count()


class Clock(Protocol):
    """Notes when a chip is done with what it was given."""

    def stamp(self) -> None:
        """One more time: that when all is done that was given so far."""
        ...

    @property
    def stamps_ns(self) -> list[int]:
        """The times so far, in nanoseconds of `time.perf_counter_ns`."""
        ...


class HostClock:
    """The `Clock` of processors, where a call returns when its work is done."""

    def __init__(self) -> None:
        self.stamps_ns: list[int] = []

    def stamp(self) -> None:
        """Now."""
        self.stamps_ns.append(perf_counter_ns())


@dataclass(frozen=True, slots=True)
class OpSpan:
    """When one op ran on this chip's stream, in nanoseconds of `time.perf_counter_ns`."""

    op: Op
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One compiled variant: its function, its text and which op each line runs."""

    run: Callable[..., tuple[Number, ...]]
    source: str
    filename: str
    ops: dict[int, Op]


class GeneratedStep:
    """A Program as straight-line Python.

    Call it with one tensor or float per input of the program, in order. `out` may hold a tensor
    for each output that is the next value of an input (see `destinations`): its value is then
    written there, and that tensor is what is returned. The destinations must not overlap the
    inputs, and both must be contiguous for the bits to be those without `out`. Inputs are never
    written.
    """

    def __init__(self, program: Program, chip: Chip) -> None:
        self.program = program
        self.destinations = destinations(program)
        self._chip = chip
        self._variants: dict[tuple[bool, bool], Code] = {}

    @property
    def source(self) -> str:
        """The text of the variant that writes no destinations and no trace."""
        return self.code(into=False, traced=False).source

    def code(self, *, into: bool, traced: bool) -> Code:
        """The variant that writes destinations (`into`), or records spans, or neither."""
        key = (into, traced)
        if key not in self._variants:
            self._variants[key] = _compile(self.program, self._chip, into=into, traced=traced)
        return self._variants[key]

    def __call__(
        self, inputs: Sequence[Number], out: Sequence[Tensor | None] | None = None
    ) -> tuple[Number, ...]:
        """Runs the step once.

        Raises:
            ChipFailed: an op raised; the error names the op, its module and its source line.
        """
        return self._guarded(self.code(into=out is not None, traced=False), inputs, out)

    def traced(
        self,
        inputs: Sequence[Number],
        out: Sequence[Tensor | None] | None = None,
        clock: Clock | None = None,
        after_op: Callable[[], None] | None = None,
    ) -> tuple[tuple[Number, ...], list[OpSpan]]:
        """Runs the step once and says when each op ran; calls of blocks are expanded.

        `clock` is the chip's, by default that of processors; `after_op` is called behind each op,
        within its span.
        """
        clock = clock or HostClock()

        def stamp() -> None:
            if after_op is not None:
                after_op()
            clock.stamp()

        code = self.code(into=out is not None, traced=True)
        clock.stamp()
        result = self._guarded(code, inputs, out, stamp)
        spans = zip(executed_ops(self.program), pairwise(clock.stamps_ns), strict=True)
        return result, [OpSpan(op, start, end) for op, (start, end) in spans]

    def _guarded(
        self, code: Code, inputs: Sequence[Number], out: Sequence[Tensor | None] | None, *more: Any
    ) -> tuple[Number, ...]:
        try:
            # Plain outputs go to the caller, who may want gradients of them some day.
            with torch.no_grad() if out is None else torch.inference_mode():
                return code.run(inputs, out, *more)
        except Exception as error:
            op = failing_op(error.__traceback__, code)
            if op is None:
                raise
            raise op_failed(op, error) from error


def executed_ops(program: Program) -> list[Op]:
    """The ops one step runs, in order, calls expanded; those of a call have its task."""
    bodies = {block.name: block.ops for block in program.blocks}
    expanded: list[Op] = []
    for op in program.main.ops:
        if op.name != CALL:
            expanded.append(op)
        elif op.site.task:
            expanded += [_of_task(inner, op.site.task) for inner in bodies[op.block]]
        else:
            expanded += bodies[op.block]
    return expanded


def _of_task(op: Op, task: str) -> Op:
    return replace(op, site=replace(op.site, task=task))


def failing_op(traceback: TracebackType | None, code: Code) -> Op | None:
    """The op on the innermost generated line of a traceback."""
    found: Op | None = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == code.filename:
            found = code.ops.get(traceback.tb_lineno, found)
        traceback = traceback.tb_next
    return found


def op_failed(op: Op, error: BaseException) -> SupernodeError:
    """The error a user sees when an op raises; one of ours keeps its kind and its words."""
    if isinstance(error, SupernodeError):
        error.where = str(op.site)  # the fabric says the rank, which tells a user less
        return error.complete(op=print_typed(op))
    lines = str(error).splitlines()
    reason = lines[0] if lines else type(error).__name__
    wrong = f"{op.name} raised {type(error).__name__}: {reason}"
    return ChipFailed(wrong, op=print_typed(op), where=str(op.site))


def _compile(program: Program, chip: Chip, *, into: bool, traced: bool) -> Code:
    writer = Writer(chip, traced=traced)
    kind = f"{'state written in place' if into else 'plain'}{', traced' if traced else ''}"
    writer.line(f"# {program.name}, rank {chip.rank}, {kind}")
    plans = rewrites(program, destinations(program) if into else ())
    for block in program.all_blocks():
        writer.block(block, plans[block.name], is_main=block is program.main)
    source = "\n".join(writer.lines) + "\n"
    filename = f"<supernode {program.name} #{next(_NUMBER)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope = dict(writer.names.bound)
    exec(compile(source, filename, "exec"), scope)
    run = cast(Callable[..., tuple[Number, ...]], scope["main"])
    return Code(run=run, source=source, filename=filename, ops=writer.ops)
