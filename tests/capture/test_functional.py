"""Every op of torch that writes is recorded as one that takes the same arguments."""

from collections.abc import Iterator

import torch

from supernode.capture import compat
from supernode.capture.compat import OpOverload
from supernode.capture.functional import Kind, describe


def overloads() -> Iterator[OpOverload]:
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads() if hasattr(packet, "overloads") else ():
            op = getattr(packet, overload)
            if torch._C._dispatch_has_kernel(op.name()):  # others are of TorchScript alone
                yield op


def types(op: OpOverload) -> list[str]:
    return [str(argument.type) for argument in compat.arguments_of(op)]


def test_the_functional_form_takes_what_the_op_in_place_takes() -> None:
    found = 0
    for op in overloads():
        info = describe(op)
        if info.kind in (Kind.INPLACE, Kind.RESHAPES_SELF):
            assert info.functional is not None, op
            ours, theirs = types(op), types(info.functional)
            shorter = min(len(ours), len(theirs))
            assert ours[:shorter] == theirs[:shorter], op
            found += 1
    assert found > 150
