"""The command line: `supernode run | simulate | compare | explain | machines`."""

from supernode.cli.main import main as main
