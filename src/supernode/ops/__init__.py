"""The op table: for each op its formula (so its sharding), its cost and its local form. No torch.

A new op is one row in a family file. Kernels are registered elsewhere, by name.
"""

from supernode.ops import (
    attention,
    batch_norm,
    convolution,
    factory,
    grouped,
    index,
    lookup,
    loss,
    masked,
    matmul,
    normalisation,
    order,
    pointwise,
    pooling,
    random,
    reduction,
    spatial,
    spectral,
    view,
    windows,
)
from supernode.ops.formula import Dim as Dim
from supernode.ops.formula import Dims as Dims
from supernode.ops.formula import Formula as Formula
from supernode.ops.fuse import fuses as fuses
from supernode.ops.fuse import gathers as gathers
from supernode.ops.fuse import overwrites as overwrites
from supernode.ops.fuse import reduces as reduces
from supernode.ops.reduction import MEAN as MEAN
from supernode.ops.reduction import NORM2 as NORM2
from supernode.ops.row import KERNEL as KERNEL
from supernode.ops.row import Cost as Cost
from supernode.ops.row import Fresh as Fresh
from supernode.ops.row import Row as Row
from supernode.ops.row import Split as Split
from supernode.ops.row import cost as cost
from supernode.ops.row import is_view as is_view
from supernode.ops.row import makes_new_memory as makes_new_memory
from supernode.ops.row import register as register
from supernode.ops.row import register_kernel as register_kernel
from supernode.ops.row import row as row
from supernode.ops.row import table as table
from supernode.ops.shape import Product as Product
from supernode.ops.shape import Scores as Scores
from supernode.ops.shape import Shape as Shape

for _family in (
    attention,
    batch_norm,
    convolution,
    factory,
    grouped,
    index,
    lookup,
    loss,
    masked,
    matmul,
    normalisation,
    order,
    pointwise,
    pooling,
    random,
    reduction,
    spatial,
    spectral,
    view,
    windows,
):
    register(_family.ROWS)
