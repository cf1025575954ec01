"""What is timed: small programs, each of ops of one kind at sizes from tiny to large.

Every chip runs them at the same time, as in a step: what chips share (memory, caches, the clock)
is shared. Sizes are none of those of the models that predictions are compared on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from supernode.capture import capture
from supernode.ir import Arg, Block, Op, Port, Program, Site, TensorType, Value
from supernode.plan import Layout, Mesh, Plan
from supernode.simulate.collective_time import COLLECTIVES, Collective

AXIS = "x"

# (groups, m, n, k): squares, few rows, short and long sums, narrow and batched ones.
PRODUCTS = (
    *((1, side, side, side) for side in (16, 48, 96, 192, 400, 700)),
    *((1, rows, 640, 640) for rows in (1, 4, 12, 40, 160)),
    *((1, 300, 200, depth) for depth in (24, 100, 700, 2000)),
    *((1, 2400, 320, 320), (1, 320, 2400, 320), (1, 2400, 72, 72), (1, 72, 72, 2400)),
    *((6, 96, 96, 40), (24, 96, 40, 96), (24, 160, 160, 56)),
)
# (batch, heads, tokens, width of a head)
ATTENTIONS = (
    *((1, 2, 40, 24), (2, 4, 96, 24), (4, 4, 40, 56), (2, 6, 160, 40)),
    *((2, 6, 320, 56), (1, 6, 700, 40), (1, 2, 900, 72)),
)
STREAMS = (100, 3000, 20_000, 80_000, 300_000, 800_000, 2_000_000)
CONVOLUTIONS = ((2, 12, 24, 3), (4, 24, 20, 3), (4, 40, 14, 1), (2, 80, 10, 3))
EXPERTS = ((4, 24, 40, 72), (6, 40, 96, 200))
MESSAGES = (64, 1 << 10, 1 << 13, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
_REST: Mapping[Collective, tuple[Arg, ...]] = {
    "all_reduce": ("sum",),
    "reduce_scatter": ((0,), "sum"),
    "all_gather": ((0,),),
    "all_to_all": ((0,), (0,)),
}
"""The arguments of each collective behind its values and its axis."""
REPEATS = 4
"""So often each runs in a step: the first collective waits for the slowest chip, and the first op
for its code to be fetched."""


Function = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A plan whose ops are timed, and the arguments of its step by name."""

    name: str
    plan: Plan
    args: dict[str, Tensor]


def op_probes(chips: int, *, quick: bool) -> list[Probe]:
    """Probes of what chips compute."""
    few = slice(None, None, 2 if quick else 1)
    found = [
        _probe("elementwise ops", chips, _streams, [(_of(size),) for size in STREAMS[few]]),
        _probe("attention", chips, _attention, [_qkv(*s) for s in ATTENTIONS[few]]),
        _probe("convolutions", chips, _convolution, [_conv(*s) for s in CONVOLUTIONS]),
        _probe("experts", chips, _experts, [_grouped(*s) for s in EXPERTS]),
    ]
    for dtype in (torch.float32, torch.bfloat16):
        pairs = [_matrices(dtype, *shape) for shape in PRODUCTS[few]]
        found.append(_probe(f"products in {str(dtype)[6:]}", chips, torch.matmul, pairs))
    return found


def link_probes(chips: int, *, quick: bool) -> list[Probe]:
    """Probes of what all chips send each other; one for each collective."""
    sizes = MESSAGES[::2] if quick else MESSAGES
    return [_collectives(kind, chips, sizes) for kind in COLLECTIVES]


def empty_probe(chips: int) -> Probe:
    """A step of hardly anything: what it takes, the host adds."""
    return _probe("an empty step", chips, lambda x: x + 1, [(_of(1),)])


def _probe(name: str, chips: int, function: Function, given: Sequence[tuple[Tensor, ...]]) -> Probe:
    args = tuple(arg for each in given for arg in each)
    program = capture(_repeated(function, len(given[0])), None, (), args, name=name).program
    return Probe(
        name=name,
        plan=_by_all(program, program, chips),
        args=dict(zip((port.name for port in program.inputs), args, strict=True)),
    )


def _by_all(program: Program, local: Program, chips: int) -> Plan:
    """The plan by which every chip runs `local`, all at the same time."""
    return Plan(
        program=program,
        mesh=Mesh(((AXIS, chips),)),
        layout=f"{AXIS}={chips}",
        local=local,
        inputs=tuple(Layout.whole(len(v.tensor.shape)) for v in program.main.inputs),
        outputs=tuple(Layout.whole(len(v.tensor.shape)) for v in program.main.outputs),
        placements=(),
    )


def _of(*shape: int) -> Tensor:
    return torch.rand(shape)


def _corner(x: Tensor) -> Tensor:
    """One element, so that all is computed and hardly anything sent back. It is a copy: what is
    computed is free again at once, as most of it is in a real step."""
    for _ in range(x.ndim):
        x = x[0]
    return x.clone()


def _repeated(function: Function, each: int) -> Callable[..., list[Tensor]]:
    """The function of so many arguments at a time, `REPEATS` times on each."""

    def step(*args: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for first in range(0, len(args), each):
            for _ in range(REPEATS):
                results = function(*args[first : first + each])
                found += map(_corner, [results] if isinstance(results, Tensor) else results)
        return found

    return step


def _matrices(dtype: torch.dtype, groups: int, m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    outer = () if groups == 1 else (groups,)
    return _of(*outer, m, k).to(dtype), _of(*outer, k, n).to(dtype)


def _streams(x: Tensor) -> tuple[Tensor, ...]:
    y = x + x * 0.5
    table = y[: y.numel() // 10 * 10].view(10, -1)
    turned = table.t().contiguous()
    return F.gelu(y), torch.sigmoid(x), torch.softmax(table, -1), turned, table.sum(0), x.bfloat16()


def _qkv(batch: int, heads: int, tokens: int, width: int) -> tuple[Tensor, ...]:
    return tuple(_of(batch, heads, tokens, width) for _ in range(3))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    q, k, v = (each.detach().requires_grad_() for each in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out, *torch.autograd.grad(out, (q, k, v), torch.ones_like(out))


def _conv(batch: int, channels: int, side: int, kernel: int) -> tuple[Tensor, Tensor]:
    return _of(batch, channels, side, side), _of(2 * channels, channels, kernel, kernel)


def _convolution(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    out = F.conv2d(x, w, padding=w.shape[-1] // 2)
    return out, *torch.autograd.grad(out, (x, w), torch.ones_like(out))


def _grouped(groups: int, m: int, n: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    ends = torch.arange(1, groups + 1, dtype=torch.int32) * m
    return _of(groups * m, k), _of(groups, k, n), ends


def _experts(x: Tensor, w: Tensor, ends: Tensor) -> Tensor:
    return F.grouped_mm(x, w, offs=ends)


def _collectives(kind: Collective, chips: int, sizes: Sequence[int]) -> Probe:
    """`REPEATS` collectives of each size, of float32, counted as `collective_time` does."""
    inputs: list[Value] = []
    ops: list[Op] = []
    for i, size in enumerate(sizes):
        elements = max(size // 4 // chips, 1) * chips
        given = elements // chips if kind == "all_gather" else elements
        made = elements // chips if kind == "reduce_scatter" else elements
        inputs.append(Value(i, TensorType("float32", (given,))))
        for _ in range(REPEATS):
            result = Value(len(sizes) + len(ops), TensorType("float32", (made,)))
            args = ((inputs[-1],), AXIS, *_REST[kind])
            site = Site(module="", phase="forward")
            ops.append(Op(name=f"fabric.{kind}", args=args, outputs=(result,), site=site))
    ports = tuple(Port(name=f"x{i}", role="arg") for i in range(len(inputs)))

    def program(ops: Sequence[Op]) -> Program:
        return Program(
            name=kind,
            inputs=ports,
            outputs=(Port(name="y", role="result"),),
            main=Block(name="main", inputs=tuple(inputs), ops=tuple(ops), outputs=(inputs[0],)),
            updates=(None,),
        )

    given = {port.name: _of(*value.tensor.shape) for port, value in zip(ports, inputs, strict=True)}
    plan = _by_all(program(()), program(ops), chips)
    return Probe(name=kind.replace("_", "-"), plan=plan, args=given)
