"""What computes an op on a chip: straight-line code from a Program."""

from supernode.kernels.compiled import compiled as compiled
from supernode.kernels.generate import generate as generate
from supernode.kernels.kernel import KERNELS as KERNELS
from supernode.kernels.kernel import Kernel as Kernel
from supernode.kernels.kernel import kernel as kernel
from supernode.kernels.kernel import origins as origins
from supernode.kernels.local import LOCAL as LOCAL
from supernode.kernels.origin import Origin as Origin
from supernode.kernels.origin import is_making as is_making
from supernode.kernels.origin import make as make
from supernode.kernels.piece import Piece as Piece
from supernode.kernels.piece import piece_of as piece_of
from supernode.kernels.random import RANDOM as RANDOM
from supernode.kernels.step import Clock as Clock
from supernode.kernels.step import GeneratedStep as GeneratedStep
from supernode.kernels.step import HostClock as HostClock
from supernode.kernels.step import OpSpan as OpSpan
from supernode.kernels.step import executed_ops as executed_ops
from supernode.kernels.strides import is_dense as is_dense
from supernode.kernels.surroundings import Places as Places
