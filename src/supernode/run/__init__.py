"""Plan → Trace on real chips: kinds of chips, the fabric between them, the engine that steps."""

from supernode.run.engine.loaded import LoadedStep as LoadedStep
from supernode.run.engine.node import Node as Node
from supernode.run.engine.node import connect as connect
