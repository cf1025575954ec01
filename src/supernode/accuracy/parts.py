"""Plans of a single collective or a single op, to be simulated like any other plan."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from supernode.accuracy.case import Access, Collective, NotExpressed, Operator
from supernode.capture import capture
from supernode.ir import FETCH, STORE, Arg, Block, Op, Port, Program, Site, TensorType, Value
from supernode.machine import Machine
from supernode.partition import partition
from supernode.plan import Layout, Mesh, Plan
from supernode.simulate.precision import PRECISIONS

_AXIS = "x"


def collective_plan(spec: Collective) -> Plan:
    """Each of the chips has a buffer, and one collective over all of them runs."""
    mesh = Mesh(((_AXIS, spec.chips),))
    elements = max(1, round(spec.data_bytes / 2))
    elements += -elements % spec.chips
    share = elements // spec.chips
    sizes = {"all_gather": (share, elements), "reduce_scatter": (elements, share)}
    given, made = sizes.get(spec.kind, (elements, elements))
    source = Value(0, TensorType("bfloat16", (given,)))
    result = Value(1, TensorType("bfloat16", (made,)))
    rest = {"all_reduce": ("sum",), "reduce_scatter": ("sum", (0,)), "all_gather": ((0,),)}
    rest |= dict.fromkeys(("dispatch", "combine"), (spec.copies, spec.once))
    args = ((source,), _AXIS, *rest.get(spec.kind, (0, 0)))
    return _of_one_op(f"fabric.{spec.kind}", args, source, result, mesh)


def access_plan(spec: Access) -> Plan:
    """Each of the chips fetches, or stores, one value; a peer is at the other end of them."""
    elements = TensorType("uint8", (max(1, round(spec.data_bytes)),))
    source, result = Value(0, elements), Value(1, elements)
    args = (source, spec.place)
    name = FETCH if spec.read else STORE
    return _of_one_op(name, args, source, result, Mesh(((_AXIS, spec.apart + 1),)))


def _of_one_op(name: str, args: tuple[Arg, ...], source: Value, result: Value, mesh: Mesh) -> Plan:
    """That each chip makes `result` of `source`."""
    op = Op(name=name, args=args, outputs=(result,), site=Site(module="", phase="forward"))
    return Plan(
        program=_program(name, source, (), source),
        mesh=mesh,
        layout=f"{_AXIS}={mesh.size}",
        local=_program(name, source, (op,), result),
        inputs=(Layout.whole(1),),
        outputs=(Layout.whole(1),),
        placements=(),
    )


def _program(name: str, source: Value, ops: tuple[Op, ...], result: Value) -> Program:
    return Program(
        name=name,
        inputs=(Port(name="x", role="arg"),),
        outputs=(Port(name="y", role="result"),),
        main=Block(name="main", inputs=(source,), ops=ops, outputs=(result,)),
        updates=(None,),
    )


def operator_plan(spec: Operator, machine: Machine) -> tuple[Plan, float]:
    """The op on one chip, and its time at the peak that its utilisation is a share of."""
    sizes = dict(spec.sizes)
    if spec.name == "grouped-gemm":
        return _grouped(sizes, spec.dtype, machine)
    if spec.name.startswith("mla-attention"):
        return _latent(sizes, machine, by_memory="memory" in spec.name)
    raise NotExpressed(f"no op is known by the name {spec.name}")


def _grouped(sizes: dict[str, int], dtype: str, machine: Machine) -> tuple[Plan, float]:
    """M rows for each of the groups, as table 10 counts them."""
    e, m, n, k = (sizes[name] for name in ("groups", "M", "N", "K"))
    x, w = _empty(e * m, k), _empty(e, k, n)
    ends = torch.empty(e, dtype=torch.int32, device="meta")
    plan = _captured(lambda x, w, ends: F.grouped_mm(x, w, offs=ends), x, w, ends)
    unit = PRECISIONS[dtype].dtype if dtype in PRECISIONS else "bfloat16"
    return plan, 2.0 * e * m * n * k / machine.chip.peak(unit).value


def _latent(sizes: dict[str, int], machine: Machine, *, by_memory: bool) -> tuple[Plan, float]:
    """Heads that all attend to one latent of 512 + 64 a token, as decoding does."""
    b, h, t, s = (sizes[name] for name in "bhts")
    q, latents = _empty(b, h, t, 576), _empty(b, 1, s, 576)
    plan = _captured(
        lambda q, c: F.scaled_dot_product_attention(q, c, c, enable_gqa=True), q, latents
    )
    if by_memory:
        moved = 2.0 * (b * s * 576 + 2 * b * h * t * 576)
        return plan, moved / machine.chip.memory.bandwidth_bytes_per_s.value
    return plan, 2.0 * b * h * t * s * (576 + 576) / machine.chip.peak("bfloat16").value


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def _captured(function: Callable[..., Any], *args: Tensor) -> Plan:
    return partition(capture(function, None, (), args, name="op").program, "")
