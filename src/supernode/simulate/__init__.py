"""Simulate: Plan + Machine → Trace: event core, cost of an op, cost of a transfer. No torch."""

from supernode.simulate.collective_time import collective_time as collective_time
from supernode.simulate.collective_time import sent_bytes as sent_bytes
from supernode.simulate.comm.access import access_time as access_time
from supernode.simulate.comm.experts import experts_time as experts_time
from supernode.simulate.launched import by_host as by_host
from supernode.simulate.limits import limits as limits
from supernode.simulate.op_time import op_time as op_time
from supernode.simulate.precision import cost_in as cost_in
from supernode.simulate.precision import is_training as is_training
from supernode.simulate.range import Doubt as Doubt
from supernode.simulate.range import range_of as range_of
from supernode.simulate.side_by_side import CostOf as CostOf
from supernode.simulate.simulate import Rehearsal as Rehearsal
from supernode.simulate.simulate import simulate as simulate
from supernode.simulate.simulation import Simulation as Simulation
from supernode.simulate.terms import Terms as Terms
from supernode.simulate.timing import Timing as Timing
