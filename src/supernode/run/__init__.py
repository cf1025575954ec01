"""Plan → Trace on real chips: kinds of chips, the fabric between them, the engine that steps."""

from supernode.run.engine.liveness import STUCK_AFTER_S as STUCK_AFTER_S
from supernode.run.engine.loaded import LoadedStep as LoadedStep
from supernode.run.engine.node import Node as Node
from supernode.run.engine.node import connect as connect
