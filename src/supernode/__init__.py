"""supernode: many AI chips, one computer.

A plain PyTorch step, written for one chip, runs on all of them, and is predicted on machines you
don't have. The public names are listed in `__all__`; those that need torch are loaded on first
use, so that a saved Program can be simulated without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from supernode.errors import SupernodeError as SupernodeError
from supernode.ir import Program as Program
from supernode.machine import Machine as Machine
from supernode.machine import load_machine as load_machine
from supernode.partition import partition as partition
from supernode.plan import Layout as Layout
from supernode.plan import Mesh as Mesh
from supernode.plan import Plan as Plan
from supernode.simulate import Simulation as Simulation
from supernode.simulate import simulate as simulate
from supernode.trace import Trace as Trace

if TYPE_CHECKING:
    from supernode.api import Node as Node
    from supernode.api import Step as Step
    from supernode.api import connect as connect
    from supernode.checkpoint import Checkpoint as Checkpoint
    from supernode.kernels.kernel import kernel as kernel

__version__ = "0.1.0"
__all__ = [
    "Checkpoint",
    "Layout",
    "Machine",
    "Mesh",
    "Node",
    "Plan",
    "Program",
    "Simulation",
    "Step",
    "SupernodeError",
    "Trace",
    "connect",
    "kernel",
    "load_machine",
    "partition",
    "simulate",
]
_NEED_TORCH = {
    "Checkpoint": "supernode.checkpoint",
    "Node": "supernode.api",
    "Step": "supernode.api",
    "connect": "supernode.api",
    "kernel": "supernode.kernels",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        return getattr(import_module(_NEED_TORCH[name]), name)
    raise AttributeError(f"module 'supernode' has no attribute {name!r}")
