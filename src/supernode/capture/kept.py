"""Constants that outlive a recording, in a cache of the user's or a library's.

Positions and masks are often computed once and kept (`lru_cache`, a dict by size). If the recorded
run is the first, what is kept is a fake, which the next plain run would stumble over.
"""

from supernode.capture import compat
from supernode.capture.fixed import fixed_tensor
from supernode.capture.tensors import Tensors


def make_real(tensors: Tensors) -> None:
    """Gives the fakes that somebody still holds their data, where constants decide it."""
    for fake in tensors.alive():
        real = fixed_tensor(tensors.tape, tensors.value_of(fake), tensors.constants)
        if real is not None:
            compat.swap_contents(fake, real)
