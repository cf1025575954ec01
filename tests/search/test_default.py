"""The layout that is used when none is given."""

import pytest

from programs import Builder
from supernode.errors import LayoutError
from supernode.ir import Program
from supernode.partition import partition
from supernode.search import default_layout, usable_chips


def mlp(batch: int, width: int = 16, hidden: int = 32) -> Program:
    b = Builder()
    x = b.input("x", "arg", (batch, width))
    up = b.input("up", "param", (hidden, width))
    down = b.input("down", "param", (width, hidden))
    h = b.op("aten.relu", b.op("aten.mm", x, b.op("aten.t", up)))
    b.result(b.op("aten.mm", h, b.op("aten.t", down)))
    return b.build()


STATE_BYTES = 2 * 16 * 32 * 4


@pytest.mark.parametrize(
    ("batch", "chips", "capacity", "line"),
    [
        (8, 1, 1e9, ""),
        (8, 4, 1e9, "dp=4"),
        (8, 4, STATE_BYTES, "fsdp=4"),
        (4, 8, 1e9, "dp=4,tp=2"),
        (4, 8, STATE_BYTES, "fsdp=4,tp=2"),
        (48, 48, STATE_BYTES, "dp=3,fsdp=16"),
        (8, 3, 1e9, "dp=3"),
        (7, 3, 1e9, "dp=3"),
        (3, 20, 1e9, "dp=2,tp=10"),
    ],
)
def test_the_rule(batch: int, chips: int, capacity: float, line: str) -> None:
    program = mlp(batch)
    assert default_layout(program, chips, capacity) == line
    partition(program, line, chips)


def test_no_layout() -> None:
    with pytest.raises(LayoutError, match="the batch splits in at most 8 parts"):
        default_layout(mlp(8), 11 * 19)


def test_usable_chips_is_the_largest_number_with_a_layout() -> None:
    assert usable_chips(mlp(8), 384) == 256
    assert usable_chips(mlp(8), 7) == 4
    assert usable_chips(mlp(3, hidden=30), 384) == 3 * 30
