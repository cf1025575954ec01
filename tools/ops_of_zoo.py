"""Print the ops of the train steps of many models, and those the op table has no row for.

`python tools/ops_of_zoo.py [MODEL...]`: the models of tests/zoo.py. A step that can't be captured
is run as it is, and the ops that it calls are listed instead.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from ops.called import ops_called  # noqa: E402
from supernode.capture import capture  # noqa: E402
from supernode.errors import CaptureError  # noqa: E402
from supernode.ir import CALL  # noqa: E402
from supernode.ops import table  # noqa: E402
from zoo import ZOO, ZooStep, zoo_step  # noqa: E402


def ops_of(made: ZooStep) -> set[str]:
    """The names of the ops of a step that tensors go through.

    Raises:
        CaptureError: the step can't be captured.
    """
    program = capture(made.step, made.model, made.optimizer, made.args).program
    names = {op.name for block in program.all_blocks() for op in block.ops}
    return {n for n in names - {CALL, "aten._local_scalar_dense"} if not n.startswith("host.")}


def main() -> None:
    """Prints a line a model."""
    for name in sys.argv[1:] or ZOO:
        made, refused = zoo_step(name), ""
        try:
            names = ops_of(made)
        except CaptureError as error:
            made = zoo_step(name)
            refused = f"; not captured: {error.wrong}"
            names = ops_called(made.step, made.args)
        missing = ", ".join(sorted(names - set(table()))) or "none"
        print(f"{name}: {len(names)} ops, without a row: {missing}{refused}", flush=True)


if __name__ == "__main__":
    main()
