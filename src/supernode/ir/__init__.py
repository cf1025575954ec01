"""Program: types, values, ops, repeated blocks, printer, verifier, JSON. No torch."""

from supernode.ir.fills import free_fills as free_fills
from supernode.ir.fold import fold as fold
from supernode.ir.json import from_json as from_json
from supernode.ir.json import to_json as to_json
from supernode.ir.printer import print_op as print_op
from supernode.ir.printer import print_program as print_program
from supernode.ir.printer import print_typed as print_typed
from supernode.ir.program import CALL as CALL
from supernode.ir.program import NOWHERE as NOWHERE
from supernode.ir.program import Block as Block
from supernode.ir.program import Op as Op
from supernode.ir.program import Phase as Phase
from supernode.ir.program import Port as Port
from supernode.ir.program import Program as Program
from supernode.ir.program import Role as Role
from supernode.ir.program import Site as Site
from supernode.ir.program import map_values as map_values
from supernode.ir.types import Arg as Arg
from supernode.ir.types import DType as DType
from supernode.ir.types import HostType as HostType
from supernode.ir.types import TensorType as TensorType
from supernode.ir.types import Type as Type
from supernode.ir.types import Value as Value
from supernode.ir.types import short_dtype as short_dtype
from supernode.ir.unify import unify_views as unify_views
from supernode.ir.verify import verify as verify
