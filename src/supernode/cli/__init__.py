"""The command line: `supernode run | simulate | compare | machines`."""

from supernode.cli.main import main as main
