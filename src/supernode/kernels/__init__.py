"""What computes an op on a chip: straight-line code from a Program."""

from supernode.kernels.generate import generate as generate
from supernode.kernels.local import LOCAL as LOCAL
from supernode.kernels.step import GeneratedStep as GeneratedStep
from supernode.kernels.step import OpSpan as OpSpan
from supernode.kernels.step import executed_ops as executed_ops
from supernode.kernels.step import is_random as is_random
