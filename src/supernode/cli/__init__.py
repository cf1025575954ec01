"""The command line: `supernode run | simulate | compare | …`, a file for each command."""

from supernode.cli.main import main as main
