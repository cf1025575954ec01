from dataclasses import dataclass

@dataclass(frozen=True)
class GPUTarget:
    backend: str
    arch: int | str
    warp_size: int

class BaseBackend:
    target: GPUTarget
    def __init__(self, target: GPUTarget) -> None: ...
