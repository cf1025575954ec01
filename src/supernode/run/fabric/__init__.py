"""How chips reach each other's memory: one interface, one file for each kind of link."""

from supernode.run.fabric.arena import ArenaSet, HostRooms
from supernode.run.fabric.host_room import HostRoom
from supernode.run.fabric.interface import (
    Fabric,
    FabricAborted,
    FabricMismatch,
    FabricTimeout,
    Group,
    Letter,
    Mailbox,
    Reduction,
    Traffic,
)
from supernode.run.fabric.shared_memory import SharedMemoryFabric

__all__ = [
    "ArenaSet",
    "Fabric",
    "FabricAborted",
    "FabricMismatch",
    "FabricTimeout",
    "Group",
    "HostRoom",
    "HostRooms",
    "Letter",
    "Mailbox",
    "Reduction",
    "SharedMemoryFabric",
    "Traffic",
]
