"""Finds the layout of a Program on so many chips. No torch."""

from supernode.search.default import default_layout as default_layout
from supernode.search.default import usable_chips as usable_chips
