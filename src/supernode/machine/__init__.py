"""Machine: chips, memories, links and levels as data, every number with its source. No torch.

One machine is one TOML file; those in `catalogue/` are found by name.
"""

from supernode.machine.chip import Chip as Chip
from supernode.machine.chip import HostLink as HostLink
from supernode.machine.chip import Memory as Memory
from supernode.machine.chip import Overhead as Overhead
from supernode.machine.fit import Fit as Fit
from supernode.machine.load import catalogue as catalogue
from supernode.machine.load import load_machine as load_machine
from supernode.machine.machine import Level as Level
from supernode.machine.machine import Machine as Machine
from supernode.machine.machine import Summary as Summary
from supernode.machine.machine import Topology as Topology
from supernode.machine.parse import parse_machine as parse_machine
from supernode.machine.sourced import KINDS as KINDS
from supernode.machine.sourced import Alternative as Alternative
from supernode.machine.sourced import Kind as Kind
from supernode.machine.sourced import Source as Source
from supernode.machine.sourced import Sourced as Sourced
from supernode.machine.what_if import what_if as what_if
from supernode.machine.write import to_toml as to_toml
