"""NVIDIA GPUs as chips: worker `i` has GPU `i`; collectives by NCCL."""

import torch
from torch import Tensor

from supernode.errors import InputError
from supernode.run.fabric import Fabric


class Cuda:
    """The GPUs this process sees."""

    name = "cuda"
    state_in_arena = False

    def count(self) -> int:
        """One chip a GPU."""
        return torch.cuda.device_count()

    def check(self, chips: int) -> None:
        """As many as there are GPUs, at least one."""
        if not 0 < chips <= self.count():
            raise InputError(f"{chips} chips asked, this host has {self.count()} GPUs")

    def environment(self, chips: int) -> dict[str, str]:
        """Nothing: the device is chosen in `prepare`."""
        return {}

    def prepare(self, rank: int, chips: int) -> torch.device:
        """Makes GPU `rank` the current one."""
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        return device

    def links(self, shared: Fabric, chips: int) -> Fabric:
        """NCCL for the collectives, the host's arenas for the rest."""
        from supernode.run.fabric.nccl import NcclFabric

        return NcclFabric.attach(shared, chips)

    def state(self, home: Tensor) -> Tensor:
        """State lives in the GPU's memory."""
        return torch.empty_like(home, device="cuda")

    def synchronize(self) -> None:
        """Waits for the current stream's device."""
        torch.cuda.synchronize()
