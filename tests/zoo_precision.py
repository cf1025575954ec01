"""Models of the zoo in bfloat16, and how to tell that a layout rounds no worse than one chip.

Two results in low precision differ by rounding, which a step of Adam blows up to the size of the
step; so a layout is held against plain PyTorch in the same precision twice: the losses agree to the
tolerance of the dtype, and the distance from the float32 result is that of plain PyTorch.
"""

from enum import Enum

import torch
from torch import Tensor

from numerics import assert_close
from zoo import ZooStep, zoo_step
from zoo_runs import After, Subject

TIMES = 2.0
"""How many times plain PyTorch's distance from float32 a layout's may be."""
REDUCED = 256
"""The longest sum behind a loss: tokens or pixels of a batch times the width of a layer, whose
errors a mean over the batch makes smaller again."""


class Precision(Enum):
    """How a step of the zoo is made less precise than float32."""

    BF16 = "bf16"
    AUTOCAST = "autocast"

    def _made(self, name: str) -> ZooStep:
        if self is Precision.BF16:
            return zoo_step(name, torch.bfloat16)
        return zoo_step(name, autocast=True)

    def subject(self, name: str) -> Subject:
        """The step with bfloat16 weights, or with float32 weights and a forward in bfloat16."""
        return Subject(self._made(name))

    def truth(self, name: str) -> After:
        """The same weights and arguments, computed in float32 by plain PyTorch."""
        low, made = self._made(name), zoo_step(name)
        made.model.load_state_dict(low.model.state_dict())
        args = tuple(x.float() if x.is_floating_point() else x for x in low.args)
        exact = ZooStep(model=made.model, optimizer=made.optimizer, step=made.step, args=args)
        return Subject(exact).eager()


def assert_as_good(got: After, want: After, truth: After, layout: str) -> None:
    """`got` is as good as plain PyTorch's `want` in the same precision; `truth` is in float32."""
    for ours, theirs in zip(got.losses, want.losses, strict=True):
        # A loss in float32 is as precise as the bfloat16 numbers it is made from.
        assert_close(ours.bfloat16(), theirs.bfloat16(), reduced=REDUCED)
    for kind, names in _kinds(truth).items():
        ours, theirs = (_distance(each, truth, names) for each in (got, want))
        assert ours <= TIMES * theirs, f"{layout}, {kind}: {ours:.3g} off, PyTorch {theirs:.3g}"


def _kinds(after: After) -> dict[str, list[str]]:
    """The names of the floating-point state by kind: `exp_avg[…]` is of the kind `exp_avg`."""
    kinds: dict[str, list[str]] = {}
    for name, tensor in after.state.items():
        if tensor.is_floating_point() and tensor.numel() > 1:
            kind = name.partition("[")[0] if name.endswith("]") else "weights and buffers"
            kinds.setdefault(kind, []).append(name)
    return kinds


def _distance(one: After, other: After, names: list[str]) -> float:
    """The root of the summed squares of all differences."""
    return float(torch.stack([_squares(one.state[n], other.state[n]) for n in names]).sum().sqrt())


def _squares(one: Tensor, other: Tensor) -> Tensor:
    return (one.double() - other.double()).square().sum()
