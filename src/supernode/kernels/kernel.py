"""`kernel`: a function that launches Triton kernels, with a formula, as one op of a Program."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from supernode.errors import InputError
from supernode.ir import DType, HostType, Op, Program, Value
from supernode.kernels.counted import counted
from supernode.kernels.origin import Origin, origin_of
from supernode.kernels.proof import prove
from supernode.kernels.signature import Signature, signature
from supernode.ops import KERNEL, Cost, Row, register_kernel
from supernode.ops.row import nonlinear, same

Rule = Callable[..., float]
"""A number by the sizes of the factors, which are its keywords."""
KERNELS: "dict[str, Kernel]" = {}
"""The kernels of this process, by the name of their op."""


def origins(program: Program) -> tuple[Origin, ...]:
    """Where the kernels that a program uses are written.

    Raises:
        InputError: one is written where no other process can read it.
    """
    names = {op.name for block in program.all_blocks() for op in block.ops}
    used = [KERNELS[name] for name in sorted(names) if name in KERNELS]
    for each in used:
        each.origin.check(each.signature.name)
    return tuple(dict.fromkeys(each.origin for each in used))


def kernel(
    formula: str,
    *,
    whole: str = "",
    reduced: Mapping[str, str] | None = None,
    dtype: torch.dtype | Sequence[torch.dtype | None] | None = None,
    strided: bool = False,
    flops: Rule | None = None,
    bytes: Rule | None = None,
) -> Callable[[Callable[..., Any]], "Kernel"]:
    """Makes a function that launches Triton kernels an op: captured, split over chips, costed.

    `formula` names the dims of the tensors that the function takes first, and of those it returns:
    `m k, k n -> m n`. From it follow how the op is split over chips and the shapes of its results.
    Parts of a factor that no output has, here k, give partial sums, or what `reduced` says of it
    (`{"k": "max"}`); factors in `whole` are never split. Numbers and strings may come behind the
    tensors.

    `dtype` is that of the outputs, by default that of the first input. Inputs are made contiguous
    before the function sees them, unless it reads their strides (`strided=True`).

    `flops` and `bytes` give the cost by the sizes of the factors; by default the operations and the
    traffic in Triton's own form of the kernels are counted. Example:

        @sn.kernel("m k, k n, n -> m n", whole="k")
        def linear_gelu(x, weight, bias):
            out = x.new_empty(x.shape[0], weight.shape[1])
            _linear_gelu[grid](x, weight, bias, out, …)
            return out

    Raises:
        InputError: the formula is malformed, or what is decorated is no such function.
    """

    def made(function: Callable[..., Any]) -> Kernel:
        if not inspect.isfunction(function):
            raise InputError(
                f"{getattr(function, '__name__', function)} is no plain function: sn.kernel goes "
                "on the one that launches the kernel, not on the kernel itself",
                fix="def f(x): out = torch.empty_like(x); kernel[grid](x, out, …); return out",
            )
        known = signature(function, formula, whole, reduced or {})
        dtypes = (dtype,) * len(known.outputs) if not isinstance(dtype, Sequence) else tuple(dtype)
        if len(dtypes) != len(known.outputs):
            raise InputError(f"{len(dtypes)} dtypes for {len(known.outputs)} outputs")
        return Kernel(function, known, dtypes, strided, flops, bytes)

    return made


class Kernel:
    """A function that launches kernels, as an op. Call it like the function."""

    def __init__(
        self,
        function: Callable[..., Any],
        known: Signature,
        dtypes: tuple[torch.dtype | None, ...],
        strided: bool,
        flops: Rule | None,
        bytes: Rule | None,
    ) -> None:
        self.signature = known
        self.function = function
        self.origin: Origin = origin_of(function)
        self.name = f"{KERNEL}.{known.name}"
        self._dtypes = dtypes
        self._strided = strided
        self._flops = flops
        self._bytes = bytes
        self._costs: dict[object, Cost] = {}
        self.__doc__ = function.__doc__
        before = KERNELS.get(self.name)
        if before is not None and before.origin != self.origin:
            raise InputError(
                f"two kernels are named {known.name}: {before.origin} and {self.origin}",
                fix="rename one of them",
            )
        self._op = torch.library.custom_op(
            f"{KERNEL}::{known.name}", self.run, mutates_args=(), schema=known.schema
        )
        self._op.register_fake(self._fake)
        self._op.register_autograd(self._no_backward)
        KERNELS[self.name] = self
        register_kernel(
            Row(
                name=self.name,
                formula=known.formula,
                cost=self.cost,
                linear=nonlinear,
                local=same,
                note=f"a kernel: {known.text}",
            )
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function gives, with gradients if a backward is registered."""
        return self._op(*args, **kwargs)

    def register_autograd(
        self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None
    ) -> None:
        """Gives the kernel a backward: `backward(ctx, *gradients)` as in `torch.library`.

        It may call other kernels or be plain torch; `setup_context(ctx, inputs, output)` saves
        what it needs.
        """
        self._op.register_autograd(backward, setup_context=setup_context)

    def check(self, *args: Any) -> list[str]:
        """Runs the kernel whole and in parts on these arguments; gives the factors that may split.

        Raises:
            InputError: parts do not give the whole, so the formula is wrong; the error says where.
        """
        return prove(self.run, self.signature, args)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, on tensors with data; its results are compared with the formula."""
        count = len(self.signature.tensors)
        tensors, rest = args[:count], args[count:]
        dense = tensors if self._strided else tuple(each.contiguous() for each in tensors)
        wanted = self._results(tensors)
        out = self.function(*dense, *rest, **kwargs)
        given = tuple(out) if isinstance(out, tuple | list) else (out,)
        found = [(tuple(each.shape), each.dtype) for each in given if isinstance(each, Tensor)]
        if found != wanted or len(found) != len(given):
            raise InputError(
                f"{self.signature.name} returns {_shown(found)}, its formula "
                f"{self.signature.text!r} says {_shown(wanted)}",
                fix="allocate the output so, or give sn.kernel its dtype=",
            )
        read = {_memory(each) for each in dense}
        if any(_memory(each) in read for each in given):
            raise InputError(
                f"{self.signature.name} returns one of its inputs, or a view of it",
                fix="write into memory of its own: torch.empty_like(x)",
            )
        return out if len(given) == 1 else given

    def cost(self, op: Op) -> Cost:
        """FLOP and bytes of one use.

        Raises:
            InputError: they can't be counted, and were not given.
        """
        values = dict.fromkeys(op.inputs)
        look = (op.args, op.kwargs, tuple(values), tuple(v.type for v in op.outputs))
        if look not in self._costs:
            self._costs[look] = self._cost(op)
        return self._costs[look]

    def _cost(self, op: Op) -> Cost:
        sizes = self.signature.formula(op).sizes
        dtype = op.outputs[0].tensor.dtype
        if self._flops is not None and self._bytes is not None:
            moved = float(self._bytes(**sizes))
            written = float(sum(value.tensor.size_bytes for value in op.outputs))
            read = max(moved - written, 0.0)
            unit = "matmul" if self.signature.contracts else "vector"
            return Cost(float(self._flops(**sizes)), read, moved - read, unit, dtype)
        args = [_stand_in(arg) for arg in op.args]
        kwargs = {name: _stand_in(arg) for name, arg in op.kwargs}
        found = counted(self.signature.name, lambda: self.function(*args, **kwargs))
        flops = found.flops if self._flops is None else float(self._flops(**sizes))
        unit = "matmul" if found.products > found.flops / 2 else "vector"
        return Cost(flops, found.bytes_read, found.bytes_written, unit, dtype)

    def _fake(self, *args: Any, **kwargs: Any) -> Any:
        made = [
            args[0].new_empty(shape, dtype=dtype)
            for shape, dtype in self._results(args[: len(self.signature.tensors)])
        ]
        return made[0] if len(made) == 1 else tuple(made)

    def _results(self, tensors: Sequence[Tensor]) -> list[tuple[tuple[int, ...], torch.dtype]]:
        sizes = self.signature.sizes(tuple(tuple(each.shape) for each in tensors))
        dtypes = [dtype or tensors[0].dtype for dtype in self._dtypes]
        return list(zip(self.signature.results(sizes), dtypes, strict=True))

    def _no_backward(self, ctx: Any, *gradients: Any) -> Any:
        name = self.signature.name
        raise InputError(
            f"the kernel {name} has no backward",
            fix=f"{name}.register_autograd(backward, setup_context=…), or call it under no_grad",
        )


def _memory(tensor: Tensor) -> int:
    """A number that tensors share where they share memory; those of no element share none."""
    return tensor.untyped_storage().data_ptr() if tensor.numel() else -id(tensor)


def _shown(results: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    each = [f"{str(dtype).removeprefix('torch.')}{list(shape)}" for shape, dtype in results]
    return ", ".join(each) or "no tensor"


def _stand_in(arg: Any) -> Any:
    """An argument without data, for counting."""
    if isinstance(arg, Value):
        if isinstance(arg.type, HostType):
            return 0.5 if arg.type.dtype == "float64" else 1
        return torch.empty(arg.type.shape, dtype=getattr(torch, arg.type.dtype), device="meta")
    return getattr(torch, arg.name) if isinstance(arg, DType) else arg
