"""Finds the layout of a Program on so many chips, and what would be faster. No torch."""

from supernode.search.default import default_layout as default_layout
from supernode.search.default import usable_chips as usable_chips
from supernode.search.what_if import Change as Change
from supernode.search.what_if import best_changes as best_changes
