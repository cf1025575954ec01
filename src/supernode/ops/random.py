"""Random numbers are drawn whole on every chip, all from the same state of the generator.

So a step draws the same numbers on any number of chips; what follows may be split.
"""

from supernode.ops.formula import bare, broadcast
from supernode.ops.row import Row, linear_in, nonlinear, same, streaming

ROWS = [
    *(
        Row(
            name=name,
            formula=bare,
            cost=streaming(8),
            linear=nonlinear,
            local=same,
            note="drawn whole on every chip",
        )
        for name in ("aten.bernoulli", "aten.bernoulli.p", "aten.native_dropout")
    ),
    Row(
        name="aten.native_dropout_backward",
        formula=broadcast,
        cost=streaming(2),
        linear=linear_in((0,)),
        local=same,
        note="the gradient where the mask is, scaled",
    ),
]
