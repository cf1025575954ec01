"""What a scaler of the loss does in kernels of its own, as ordinary ops that give the same bits."""

import math

import torch
from torch import Tensor

from supernode.capture.call import Call


def unscale(call: Call) -> None:
    """Gradients times one over the scale; `found_inf` becomes 1 where one of them is not finite."""
    grads, found_inf, factor = call.args
    with call.recording:
        # The largest magnitude is finite where all are: it keeps a NaN.
        largest = [torch.linalg.vector_norm(grad, math.inf) for grad in grads if grad.numel()]
        for grad in grads:
            grad.copy_(_times(grad, factor))
        if largest:
            finite = torch.stack(largest).isfinite().all()
            found_inf.copy_(torch.where(finite, found_inf, torch.ones_like(found_inf)))


def _times(grad: Tensor, factor: Tensor) -> Tensor:
    if grad.dtype in (torch.float32, torch.float64):
        return grad * factor
    return (grad.float() * factor).to(grad.dtype)


def rescale(call: Call) -> Tensor:
    """The scale after a step: less where it was skipped, more after `interval` that were not."""
    scale, tracker, found_inf, growth, backoff, interval = call.args
    with call.recording:
        skipped = found_inf != 0
        count = tracker + 1
        full = count == interval
        grown = (scale.double() * growth).float()
        kept = torch.where(full & grown.isfinite(), grown, scale)
        scale.copy_(torch.where(skipped, (scale.double() * backoff).float(), kept))
        tracker.copy_(torch.where(skipped | full, torch.zeros_like(tracker), count))
    return scale
