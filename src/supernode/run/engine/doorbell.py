"""The command block: how a node tells all its workers what to do, in shared memory.

The node is one more rank of the fabric, behind the chips. It writes the block in its own arena and
raises each worker's slot 0 to the number of the command; a worker answers by raising the node's
slot of its own rank to that number.
"""

from enum import IntEnum

import torch
from torch import Tensor

from supernode.run.fabric import Fabric, FabricAborted, FabricTimeout

COMMAND_WORDS = 8
"""Kind of command, number of the loaded plan, epoch to read; the rest is spare."""

MOST_CHIPS = 256
"""A rank of the fabric has as many slots, and the node has one for the answer of each chip."""

_DOORBELL = 0


class Command(IntEnum):
    """What a worker does when its doorbell rings."""

    LOAD = 0
    STEP = 1
    TRACED_STEP = 2
    SAVE = 3
    RESTORE = 4
    TRACED_MEMORY = 5


class Doorbell:
    """One process's end: of the node (`rank == chips`) or of a worker.

    `number` is that of the command given last, or being waited for or obeyed.
    """

    def __init__(self, fabric: Fabric, chips: int) -> None:
        self._fabric = fabric
        self._chips = chips
        own = fabric.empty((COMMAND_WORDS,), torch.int64)
        self._block: Tensor = fabric.peer(own, chips)
        self.number = 0

    def ring(self, command: Command, plan: int = 0, epoch: int = 0) -> None:
        """The node: gives every worker a command."""
        self.number += 1
        self._block[:3] = torch.tensor((command, plan, epoch))
        for rank in range(self._chips):
            self._fabric.signal(rank, _DOORBELL, self.number)

    def wait_for(self, rank: int) -> None:
        """The node: returns when worker `rank` has obeyed.

        It comes up for air at every deadline of its fabric, so that a Ctrl-C is heard.
        """
        while not self._reached(rank):
            pass

    def _reached(self, slot: int) -> bool:
        try:
            self._fabric.wait(slot, self.number)
        except FabricTimeout:
            return False
        except FabricAborted as error:
            wrong = error.wrong
        else:
            return True
        # Without the slot, which tells a user nothing, and the frames, which hold the arenas.
        raise FabricAborted(wrong)

    def reset(self) -> None:
        """Either end, after the fabric was reset: the next command is the first again."""
        self.number = 0

    def next(self) -> tuple[Command, int, int]:
        """A worker: waits for a command: its kind, plan and epoch."""
        self.number += 1
        while not self._reached(_DOORBELL):
            pass
        command, plan, epoch = self._block[:3].tolist()
        return Command(command), plan, epoch

    def obeyed(self) -> None:
        """A worker: the last command is done."""
        self._fabric.signal(self._chips, self._fabric.rank, self.number)
