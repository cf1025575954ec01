"""A small machine and small plans, for rooms that need one and test something else."""

from collections.abc import Sequence
from dataclasses import replace

from supernode.ir import (
    CALL,
    Block,
    Op,
    Phase,
    Port,
    Program,
    Role,
    Site,
    TensorType,
    Value,
    verify,
)
from supernode.machine import Chip, HostLink, Kind, Level, Machine, Memory, Overhead, Sourced
from supernode.machine.machine import Topology
from supernode.plan import Mesh, Plan


def number(value: float, kind: Kind = "datasheet") -> Sourced:
    return Sourced(value=value, source="test", date="2026", kind=kind)


def level(
    name: str,
    chips: int,
    bandwidth: float = 1e9,
    latency_s: float = 1e-6,
    efficiency: float = 0.5,
    topology: Topology = "switch",
    links: int = 1,
) -> Level:
    return Level(
        name=name,
        chips=chips,
        bandwidth_bytes_per_s=number(bandwidth),
        latency_s=number(latency_s, "measured"),
        efficiency=number(efficiency, "inferred"),
        topology=topology,
        links=links,
    )


def host_link(bandwidth: float) -> HostLink:
    return HostLink(
        bandwidth_bytes_per_s=number(bandwidth),
        latency_s=number(1e-6, "guessed"),
        efficiency=number(0.8, "guessed"),
    )


def overhead(
    *, context: float = 0, communicator: float = 0, workspace: float = 0, usable: float = 1
) -> Overhead:
    return Overhead(
        context_bytes=number(context),
        communicator_bytes=number(communicator),
        workspace_bytes=number(workspace),
        usable=number(usable),
    )


def machine(
    levels: Sequence[Level] | None = None,
    *,
    name: str = "tiny",
    peak: float = 1e12,
    memory_bandwidth: float = 1e11,
    capacity_bytes: float = 1e9,
    launch_s: float = 2e-6,
    host_bandwidth: float = 1e10,
    overhead: Overhead | None = None,
) -> Machine:
    """By default two nodes of four chips; matmuls reach 0.5 of the peak, streams all of theirs."""
    levels = levels or (level("node", 4, 1e10), level("supernode", 8))
    chips = levels[-1].chips
    memory = Memory(
        capacity_bytes=number(capacity_bytes),
        bandwidth_bytes_per_s=number(memory_bandwidth),
        efficiency=number(1.0, "measured"),
        overhead=overhead,
    )
    chip = Chip(
        name="tiny chip",
        peak_flops_per_s={"bfloat16": number(2 * peak), "float32": number(peak)},
        vector_flops_per_s=number(peak / 10),
        matmul_efficiency=number(0.5, "inferred"),
        memory=memory,
        launch_overhead_s=number(launch_s, "guessed"),
        power_w=number(100),
        idle_power_fraction=number(0.25),
        host_link=host_link(host_bandwidth) if host_bandwidth else None,
    )
    return Machine(
        name=name,
        title=f"The {name} machine",
        vendor="nobody",
        chip=chip,
        chips=chips,
        levels=tuple(levels),
        power_w=number(1000.0 * chips),
    )


class Builder:
    """Writes a program of square float32 matrices, all of one size."""

    def __init__(self, side: int = 64) -> None:
        self.type = TensorType("float32", (side, side))
        self.inputs: list[Value] = []
        self.ports: list[Port] = []
        self.ops: list[Op] = []
        self.blocks: list[Block] = []
        self._made = 0

    def fresh(self) -> Value:
        self._made += 1
        return Value(self._made - 1, self.type)

    def input(self, name: str, role: Role = "param") -> Value:
        value = self.fresh()
        self.inputs.append(value)
        self.ports.append(Port(name=name, role=role))
        return value

    def op(self, name: str, *args: Value, module: str = "", phase: Phase = "forward") -> Value:
        out = self.fresh()
        self.ops.append(Op(name=name, args=args, outputs=(out,), site=Site(module, phase)))
        return out

    def all_reduce(self, value: Value, axis: str = "dp") -> Value:
        out = self.fresh()
        args = ((value,), axis, "sum")
        self.ops.append(Op(name="fabric.all_reduce", args=args, outputs=(out,)))
        return out

    def call(self, block: str, *args: Value) -> Value:
        out = self.fresh()
        self.ops.append(Op(name=CALL, block=block, args=args, outputs=(out,)))
        return out

    def program(self, output: Value) -> Program:
        main = Block(name="main", inputs=tuple(self.inputs), ops=tuple(self.ops), outputs=(output,))
        return verify(
            Program(
                name="tiny",
                main=main,
                blocks=tuple(self.blocks),
                inputs=tuple(self.ports),
                outputs=(Port(name="result", role="result"),),
                updates=(None,),
            )
        )


def plan(local: Program, mesh: Mesh, program: Program | None = None) -> Plan:
    """`local` on `mesh`; by default the whole program is the local one with less to say."""
    return Plan(
        program=program or _silent(local),
        mesh=mesh,
        layout=" ".join(f"{name}={size}" for name, size in mesh.axes),
        local=local,
        inputs=(None,) * len(local.inputs),
        outputs=(None,) * len(local.outputs),
        placements=(),
    )


def _silent(local: Program) -> Program:
    """`local` with an op that has no matmul in place of each collective."""

    def silenced(block: Block) -> Block:
        ops = (
            replace(op, name="aten.relu", args=op.inputs) if op.name.startswith("fabric.") else op
            for op in block.ops
        )
        return replace(block, ops=tuple(ops))

    return replace(local, main=silenced(local.main), blocks=tuple(map(silenced, local.blocks)))


def layer_block(builder: Builder, name: str = "layer", reduce_over: str = "") -> None:
    """A block `name`(w, x): relu(x @ w), summed over an axis if one is given."""
    inner = Builder(builder.type.shape[0])
    w, x = inner.fresh(), inner.fresh()
    y = inner.op("aten.mm", x, w, module="layers.*.mlp")
    y = inner.all_reduce(y, reduce_over) if reduce_over else y
    y = inner.op("aten.relu", y, module="layers.*.act")
    builder.blocks.append(Block(name=name, inputs=(w, x), ops=tuple(inner.ops), outputs=(y,)))


def layered(layers: int, *, side: int = 64, reduce_over: str = "") -> Program:
    """`layers` calls of one block, each with its own weight."""
    builder = Builder(side)
    layer_block(builder, reduce_over=reduce_over)
    weights = [builder.input(f"layers.{i}.weight") for i in range(layers)]
    x = builder.input("x", "arg")
    for w in weights:
        x = builder.call("layer", w, x)
    return builder.program(x)
