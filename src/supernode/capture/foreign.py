"""What torch says of a tensor without data where it means the step: in terms of the step."""

from dataclasses import dataclass

from supernode.capture.host import HostFloat, data_dependent
from supernode.capture.sites import raising_line
from supernode.errors import CaptureError


@dataclass(frozen=True, slots=True)
class _Saying:
    """A piece of a message of torch or Python, and what it stands for."""

    piece: str
    wrong: str
    fix: str


_SAYINGS = (
    _Saying(
        ".numpy() is not supported for tensor subclasses",
        "the step hands a tensor to NumPy, which sees no op of it",
        "use torch's function for it, or return the tensor and convert it outside of the step",
    ),
    _Saying(
        "unsupported format string passed to FakeTensor",
        "the step formats a tensor, which has no value while it is recorded",
        "return it, and print it outside of the step",
    ),
    _Saying(
        "There was no rule registered for HigherOrderOperator",
        "the step calls a higher-order op of torch.compile (cond, while_loop, flex_attention)",
        "write it with ordinary ops: torch.where, F.scaled_dot_product_attention",
    ),
    _Saying(
        "TorchScript",
        "the step calls TorchScript, whose ops can't be recorded",
        "call the plain module or function",
    ),
    _Saying(
        "_apply(): Couldn't swap",
        "the step moves or casts the model (.to, .half, .cuda)",
        "do it once before the step",
    ),
    _Saying(
        "not linked with support for",
        "the step moves a tensor to another device",
        "leave out .to(device) and .cuda(): supernode places all tensors",
    ),
    _Saying(
        "not compiled with CUDA",
        "the step moves a tensor to another device",
        "leave out .to(device) and .cuda(): supernode places all tensors",
    ),
    _Saying(
        "Can't pickle",
        "the step pickles a tensor or module (torch.save), which has no data while it is recorded",
        "save outside of the step, after step.pull()",
    ),
)


def in_terms_of_the_step(error: Exception) -> CaptureError | None:
    """The refusal that `error` stands for; None for an error of the step's own."""
    if isinstance(error, TypeError | IndexError) and HostFloat.__name__ in str(error):
        # Where torch wants a plain number it names the type it got.
        return data_dependent("used as a plain number", where=raising_line(error))
    for saying in _SAYINGS:
        if saying.piece in str(error):
            return CaptureError(saying.wrong, where=raising_line(error), fix=saying.fix)
    return None
