"""Plans whose layouts and traffic are known: a small one by hand, a captured one with blocks."""

from functools import lru_cache

from programs import Builder
from supernode.capture import capture
from supernode.ir import Program, Site
from supernode.models import recipe
from supernode.partition import partition
from supernode.plan import Plan

BATCH, TOKENS, WIDTH, HIDDEN, LAYERS = 8, 32, 64, 256, 2
"""Of gpt-tiny, float32."""


@lru_cache
def gpt_tiny() -> Program:
    job = recipe("gpt-tiny").build(batch=BATCH, device="meta")
    return capture(job.step, job.model, job.optimizer, job.inputs, name="gpt-tiny").program


@lru_cache
def gpt_plan(line: str) -> Plan:
    return partition(gpt_tiny(), line)


def mlp_plan(line: str, layers: int = 3) -> Plan:
    """`layers` of relu(x @ w), the last one twice as wide; one weight is trained."""
    b = Builder()
    x = b.input("x", "arg", (8, 16))
    for i in range(layers):
        b.site = Site(f"layers.{i}.linear", "forward")
        w = b.input(f"layers.{i}.linear.weight", "param", (16 * (1 + (i == layers - 1)), 16))
        y = b.op("aten.mm", x, b.op("aten.t", w))
        b.site = Site(f"layers.{i}", "forward")
        x, before = b.op("aten.relu", y), x
    b.site = Site()
    b.result(b.op("aten.mean", x))
    b.site = Site(f"layers.{layers - 1}.linear", "backward")
    grad = b.op("aten.mm", b.op("aten.t", x), before)
    b.site = Site("", "optimizer")
    b.update(w, b.op("aten.sub.Tensor", w, b.op("aten.mul.Scalar", grad, 0.1)))
    return partition(b.build("mlp"), line)
