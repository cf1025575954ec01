"""Every short way to an op reaches the very op: same overloads dispatched, same bits."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from supernode.errors import UnknownOp
from supernode.kernels.handles import PUBLIC, find_overload, handle
from supernode.plan.elementwise import OVERWRITING, WITH_OUT

A, B, C = (torch.rand(4, 4, generator=torch.Generator().manual_seed(i)) + 0.1 for i in range(3))
I = torch.tensor([[0, 1, 2, 3]] * 4)  # noqa: E741
P, Q = A > 0.5, B > 0.5
R = torch.arange(4)
GEOMETRY = ((1, 1), (0, 0), (1, 1), False, (0, 0), 1)

# overload -> argument lists (positional, keyword) as captured programs have them
SAMPLES: dict[str, list[tuple[tuple, dict]]] = {
    "abs": [((-A,), {})],
    "add.Tensor": [((A, B), {}), ((A, B), {"alpha": 0.5}), ((A, 2.5), {})],
    "addcdiv": [((A, B, C), {"value": -0.1})],
    "addcmul": [((A, B, C), {"value": 0.1}), ((A, B, C), {})],
    "addmm": [((A[0], B, C), {}), ((A, B, C), {"beta": 0.5, "alpha": 2.0})],
    "amax": [((A, (1,), True), {}), ((A,), {})],
    "amin": [((A, (0,)), {})],
    "argmax": [((A, 1), {}), ((A,), {})],
    "argmin": [((A, 1, True), {})],
    "baddbmm": [((A[None], B[None], C[None]), {})],
    "bitwise_and.Tensor": [((P, Q), {})],
    "bitwise_not": [((P,), {})],
    "bitwise_or.Tensor": [((P, Q), {})],
    "bmm": [((A[None], B[None]), {})],
    "cat": [(((A, B), 1), {}), (((A, B),), {})],
    "clamp": [((A, 0.2, 0.5), {}), ((A, None, 0.5), {}), ((A, 0.2), {})],
    "clamp_max": [((A, 0.5), {})],
    "clamp_min": [((A, 0.5), {})],
    "clone": [((A,), {}), ((A.t(),), {"memory_format": torch.contiguous_format})],
    "convolution": [
        ((A[None, None], B[None, None, :2, :2], None, *GEOMETRY), {}),
        ((A[None, None], B[None, None, :2, :2], C[0, :1], *GEOMETRY), {}),
    ],
    "cos": [((A,), {})],
    "cumsum": [((A, 1), {}), ((I, 0), {"dtype": torch.float32})],
    "detach": [((A,), {})],
    "div.Tensor": [((A, B), {}), ((A, 3.0), {})],
    "div.Tensor_mode": [((A, B), {"rounding_mode": "floor"})],
    "div.Scalar": [((A, 3), {})],
    "embedding": [((A, R), {}), ((A, R, 0, False, False), {})],
    "eq.Tensor": [((A, B), {})],
    "eq.Scalar": [((I, 2), {})],
    "erf": [((A,), {})],
    "exp": [((A,), {})],
    "floor": [((A * 9,), {})],
    "gather": [((A, 1, I), {})],
    "ge.Scalar": [((A, 0.5), {})],
    "gt.Tensor": [((A, B), {})],
    "index_select": [((A, 0, R), {})],
    "isinf": [((A,), {})],
    "isnan": [((A,), {})],
    "le.Scalar": [((A, 0.5), {})],
    "lerp.Scalar": [((A, B, 0.3), {})],
    "lerp.Tensor": [((A, B, C), {})],
    "log": [((A,), {})],
    "log1p": [((A,), {})],
    "logical_and": [((P, Q), {})],
    "logical_not": [((P,), {})],
    "logical_or": [((P, Q), {})],
    "lt.Scalar": [((A, 0.5), {})],
    "masked_fill.Scalar": [((A, P, -1.0), {})],
    "maximum": [((A, B), {})],
    "mean": [((A,), {}), ((A,), {"dtype": torch.float64})],
    "mean.dim": [((A, (1,), True), {}), ((A, None), {})],
    "minimum": [((A, B), {})],
    "mm": [((A, B), {}), ((A.t(), B), {})],
    "mul.Tensor": [((A, B), {}), ((A, 0.5), {}), ((I, 2), {})],
    "mul.Scalar": [((A, 2), {})],
    "native_layer_norm": [((A, (4,), B[0], C[0], 1e-5), {}), ((A, (4,), None, None, 1e-5), {})],
    "ne.Scalar": [((I, 2), {})],
    "neg": [((A,), {})],
    "permute": [((A, (1, 0)), {})],
    "pow.Tensor_Scalar": [((A, 2), {}), ((A, 0.5), {})],
    "pow.Tensor_Tensor": [((A, B), {})],
    "pow.Scalar": [((2.0, A), {})],
    "reciprocal": [((A,), {})],
    "relu": [((A - 0.5,), {})],
    "rsqrt": [((A,), {})],
    "rsub.Scalar": [((A, 1), {}), ((A, 1.0, 2), {})],
    "scatter.value": [((A, 1, I, 0.5), {})],
    "scatter.src": [((A, 1, I, B), {})],
    "scatter_add": [((A, 1, I, B), {})],
    "select.int": [((A, 0, 1), {})],
    "sigmoid": [((A,), {})],
    "sign": [((A - 0.5,), {})],
    "sin": [((A,), {})],
    "sqrt": [((A,), {})],
    "square": [((A,), {})],
    "squeeze": [((A[None],), {})],
    "squeeze.dim": [((A[None], 0), {})],
    "squeeze.dims": [((A[None], (0,)), {})],
    "stack": [(((A, B), 1), {}), (((A, B),), {})],
    "sub.Tensor": [((A, B), {}), ((A, B), {"alpha": 2})],
    "sum": [((A,), {}), ((I,), {"dtype": torch.float32})],
    "sum.dim_IntList": [((A, (0,), True), {}), ((A, None), {}), ((A, ()), {})],
    "t": [((A,), {})],
    "tanh": [((A,), {})],
    "transpose.int": [((A, 0, 1), {})],
    "tril": [((A, -1), {})],
    "triu": [((A,), {})],
    "unsqueeze": [((A, 1), {})],
    "where.self": [((P, A, B), {})],
}
CASES = [(name, *sample) for name, samples in SAMPLES.items() for sample in samples]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(CASES)]


class _Heard(TorchDispatchMode):
    """Notes which overloads are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **kwargs or {})


def _heard(call, args, kwargs):
    with torch.no_grad(), _Heard() as heard:
        result = call(*args, **kwargs)
    return heard.names, result


@pytest.mark.parametrize(("name", "args", "kwargs"), CASES, ids=IDS)
def test_public_function_is_the_overload(name, args, kwargs):
    found = handle(f"aten.{name}")
    assert found.call is getattr(torch, name.split(".")[0])
    names, result = _heard(found.call, args, kwargs)
    want_names, want = _heard(found.overload, args, kwargs)
    # torch's own functions turn a number into a tensor a step earlier or later.
    assert _plain(names) == _plain(want_names)
    for x, y in zip(_listed(result), _listed(want), strict=True):
        assert x.dtype == y.dtype
        assert x.stride() == y.stride()
        assert torch.equal(x, y)


@pytest.mark.parametrize(("name", "args", "kwargs"), CASES, ids=IDS)
def test_writing_elsewhere_gives_the_same_bits(name, args, kwargs):
    short = name.split(".")[0]
    want = find_overload(f"aten.{name}")(*args, **kwargs)
    if short in WITH_OUT:
        out = torch.empty_like(want)
        getattr(torch, short)(*args, out=out, **kwargs)
        assert torch.equal(out, want)
    first = args[0]
    if short in OVERWRITING and isinstance(first, torch.Tensor) and first.dtype == want.dtype:
        for operand in (first.clone(), first.t().contiguous().t()):
            plain = find_overload(f"aten.{name}")(operand, *args[1:], **kwargs)
            got = getattr(operand.clone(), f"{short}_")(*args[1:], **kwargs)
            assert got.stride() == plain.stride()
            assert torch.equal(got, plain)


def test_every_short_way_has_a_sample():
    sampled = {name.split(".")[0] for name in SAMPLES}
    assert sampled >= PUBLIC
    assert sampled >= OVERWRITING
    assert sampled >= WITH_OUT


def test_an_unknown_op_is_refused_with_the_nearest_one():
    with pytest.raises(UnknownOp, match=r"no op 'aten\.sum\.dim_IntLst'"):
        handle("aten.sum.dim_IntLst")
    with pytest.raises(UnknownOp, match="is the package that registers it imported"):
        handle("nobody.knows")


def _plain(names: list[str]) -> list[str]:
    return [name.replace(".Scalar", ".Tensor") for name in names]


def _listed(result) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple | list) else [result]
