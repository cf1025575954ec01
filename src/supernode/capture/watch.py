"""What was fixed at capture and must stay as it was, or the Program is no longer the step."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from supernode.capture import compat, hyper
from supernode.capture.host import Guard
from supernode.capture.recorder import Recorder
from supernode.capture.scaler import Settings, port_name, settings
from supernode.capture.subject import Subject
from supernode.errors import CaptureError

_AGAIN = "capture the step again (node.compile)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Fixed hyper-parameters, branches taken on promoted ones, modes, constants, scalers."""

    fixed: hyper.Fixed
    guards: tuple[Guard, ...]
    versions: tuple[tuple[Tensor, int], ...]
    training: tuple[tuple[str, nn.Module, bool], ...]
    trained: tuple[bool, ...]
    scalers: tuple[tuple[GradScaler, Settings], ...]

    @classmethod
    def on(cls, subject: Subject, recorder: Recorder, scalers: tuple[GradScaler, ...]) -> "Watch":
        """What holds now for `subject` and what `recorder` saw of its step."""
        constants = recorder.tensors.constant_tensors()
        return cls(
            fixed=hyper.fixed_values(subject.optimizers),
            guards=tuple(recorder.host.guards),
            versions=tuple((tensor, compat.version_of(tensor)) for tensor in constants),
            training=_training(subject.model),
            trained=tuple(param.requires_grad for param in subject.params.values()),
            scalers=tuple((scaler, settings(scaler)) for scaler in scalers),
        )

    def check(self, subject: Subject) -> dict[str, float]:
        """The promoted hyper-parameters now, by port name.

        Raises:
            CaptureError: something else has changed, and what.
        """
        names = self._changed(subject)
        if names:
            wrong = f"{', '.join(names)} changed since the capture"
            raise CaptureError(wrong, fix=f"{_AGAIN}, or keep it fixed")
        values = {each.name: float(each.current()) for each in hyper.promoted(subject.optimizers)}
        for guard in self.guards:
            if not guard.holds(values):
                raise CaptureError(
                    "the step branches on a hyper-parameter that has changed since the capture",
                    where=guard.where,
                    fix=_AGAIN,
                )
        return values

    def _changed(self, subject: Subject) -> list[str]:
        names = hyper.changed(self.fixed, hyper.fixed_values(subject.optimizers))
        modes = [
            f"{name}.training" for name, module, mode in self.training if module.training != mode
        ]
        names += modes[:1]  # the outermost: `model.eval()` turns all
        names += [
            f"{name}.requires_grad"
            for (name, param), trained in zip(subject.params.items(), self.trained, strict=True)
            if param.requires_grad != trained
        ]
        names += [
            f"a constant of shape {list(tensor.shape)}"
            for tensor, version in self.versions
            if compat.version_of(tensor) != version
        ]
        names += [
            port_name(index, key)
            for index, (scaler, before) in enumerate(self.scalers)
            for key, number in settings(scaler).items()
            if number != before[key]
        ]
        return names


def _training(model: nn.Module | None) -> tuple[tuple[str, nn.Module, bool], ...]:
    modules = model.named_modules(prefix="model") if model is not None else ()
    return tuple((name, module, module.training) for name, module in modules)
