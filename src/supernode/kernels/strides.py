"""How the elements of a tensor lie in memory."""

from torch import Tensor


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a stretch of memory without gaps, in some order of dims."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
