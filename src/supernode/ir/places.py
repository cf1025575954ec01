"""Which values of a main lie in another place than the memory of their chip."""

from supernode.ir.program import FETCH, STORE, Block
from supernode.ir.types import Value


def elsewhere(main: Block) -> dict[int, str]:
    """The place of each value, by id, that does not lie in the chip's memory.

    It is known by what fetches or stores the value; what is never fetched lies on the chip.
    """
    found: dict[int, str] = {}
    for op in main.ops:
        if op.name in (FETCH, STORE):
            value, place = op.args
            away = value if op.name == FETCH else op.outputs[0]
            assert isinstance(away, Value)
            assert isinstance(place, str)
            found[away.id] = place
    return found
