"""Every op of Liger-Kernel that runs on CPUs, with what it must compute."""

from .attention import CASES as ATTENTION
from .case import LEFT_OUT, Case
from .losses import CASES as LOSSES
from .mixing import CASES as MIXING
from .norms import CASES as NORMS

CASES = {**NORMS, **MIXING, **ATTENTION, **LOSSES}

__all__ = ["CASES", "LEFT_OUT", "Case"]
