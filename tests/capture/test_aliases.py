"""Writes through views: random programs of views and writes give what eager gives."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from capture.steps import run_once, same
from supernode.capture import capture
from supernode.errors import CaptureError

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "row": lambda x: x[x.shape[0] // 2] if x.dim() > 1 else x[:],
    "columns": lambda x: x[..., 1:],
    "stride": lambda x: x[..., ::2],
    "transpose": lambda x: x.transpose(0, -1),
    "permute": lambda x: x.permute(*range(1, x.dim()), 0),
    "unsqueeze": lambda x: x.unsqueeze(0) if x.dim() < 4 else x,
    "squeeze": lambda x: x.squeeze(),
    "flatten": lambda x: x.view(-1) if x.is_contiguous() else x,
    "detach": lambda x: x.detach(),
    "second chunk": lambda x: x.chunk(2)[-1],
    "split": lambda x: x.split([1, x.shape[0] - 1])[1] if x.shape[0] > 1 else x,
    "unbind": lambda x: x.unbind(-1)[-1] if x.dim() > 1 else x,
    "diagonal": lambda x: x.diagonal() if x.dim() > 1 else x,
    "expand as is": lambda x: x.expand(x.shape),
    "strided": lambda x: x.as_strided((2, 2), (1, 2)) if x.is_contiguous() and x.numel() > 4 else x,
    "data": lambda x: x.data,
    "reshape": lambda x: x.reshape(-1),
}
WRITES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda x, y: x.add_(1.5),
    "multiply by a sum": lambda x, y: x.mul_(y.sum()),
    "fill": lambda x, y: x.fill_(2.0),
    "zero": lambda x, y: x.zero_(),
    "copy": lambda x, y: x.copy_(y.sum().expand(x.shape)),
    "copy of another dtype": lambda x, y: x.copy_(y.sum().double()),
    "set an item": lambda x, y: x.__setitem__(-1, y.sum()) if x.dim() else None,
    "set by mask": lambda x, y: x.__setitem__(x > 1, 0.5),
    "set by index": lambda x, y: x.__setitem__(torch.tensor([0, -1]), 3.0) if x.dim() else None,
    "clamp": lambda x, y: x.clamp_(max=y.sum().abs()),
    "masked fill": lambda x, y: x.masked_fill_(x < 0, -1.0),
    "compare": lambda x, y: x.gt_(0.1),
    "in double": lambda x, y: x.add_(y.double().sum()),
    "out": lambda x, y: torch.mul(y.sum(), 2.0, out=x) if x.dim() == 0 else None,
    "transpose in place": lambda x, y: x.detach().t_().mul_(2) if x.dim() == 2 else None,
    "foreach": lambda x, y: torch._foreach_add_([x], [torch.ones_like(x)]),
}

moves = st.lists(
    st.tuples(st.sampled_from(sorted(VIEWS)), st.sampled_from(sorted(WRITES)), st.integers(0, 9)),
    min_size=1,
    max_size=6,
)


def play(moves: list[tuple[str, str, int]], x: Tensor) -> list[Tensor]:
    """Makes views of views and writes into them; all of them are read at the end."""
    base = x.clone()
    held = [base, base * 2]
    for view, write, pick in moves:
        held.append(VIEWS[view](held[pick % len(held)]))
        WRITES[write](held[-1], held[(pick + 1) % len(held)])
    return [each.clone() for each in held]


@settings(max_examples=200)
@given(moves=moves)
def test_views_and_writes(moves: list[tuple[str, str, int]]) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    want = play(moves, x)
    try:
        captured = capture(lambda x: play(moves, x), None, (), (x,))
    except CaptureError as error:
        assert "as_strided of a view" in error.wrong  # noqa: PT017
        return
    got = run_once(captured, x)
    assert all(
        torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(got, want, strict=True)
    )


def test_a_write_into_a_differentiated_view() -> None:
    def step(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        y = leaf * 2
        y[:, 0] = y[:, 1] * 3
        y[1].mul_(leaf.sum())
        y.t()[2:].add_(1.0)
        y.view(-1)[::3].zero_()
        (gradient,) = torch.autograd.grad(y.sin().sum(), leaf)
        return gradient

    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    captured = capture(step, None, (), (x,))
    assert same(run_once(captured, x), step(x))


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (lambda x: x.clone().expand(2, 4, 6).mul_(2), "expanded|refers to a single memory"),
        (lambda x: x.clone().resize_(2, 2), "no form without mutation"),
        (lambda x: x.clone().set_(x), "no form without mutation"),
        (lambda x: x.clone().unfold(0, 2, 1).add_(1), "can't be undone|refers to a single memory"),
        (lambda x: x.clone()[1:].as_strided((2,), (1,)), "as_strided of a view"),
        (lambda x: torch.add(x, x, out=torch.empty(3)), "resizes its result"),
    ],
)
def test_what_has_no_inverse_is_refused(step: Callable[[Tensor], Tensor], text: str) -> None:
    with pytest.raises((CaptureError, RuntimeError), match=text):
        capture(step, None, (), (torch.ones(4, 6),))
