"""Torch's random ops as draws: what each makes of uniform, normal or whole numbers.

The numbers are ours and not those of torch's generator, which no two layouts could share; the
distributions are torch's. Adding an op is adding a row to `RULES`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from supernode.capture.draws import Draws
from supernode.capture.sites import user_line
from supernode.capture.tape import KwArgs, Tape
from supernode.errors import CaptureError
from supernode.ir import Arg, DType, TensorType, Type, Value

_INT64 = "int64"
_LARGEST_KEY = 2**62


@dataclass(frozen=True, slots=True)
class Request:
    """A random op: its arguments, and the types of its results."""

    args: tuple[Arg, ...]
    kwargs: KwArgs
    types: tuple[Type, ...]
    draws: Draws
    tape: Tape

    @property
    def type(self) -> TensorType:
        """Of the first result."""
        type_ = self.types[0]
        assert isinstance(type_, TensorType)
        return type_

    def arg(self, position: int, name: str, default: Arg = None) -> Arg:
        """An argument by position or name."""
        if position < len(self.args):
            return self.args[position]
        return dict(self.kwargs).get(name, default)

    def draw(self, kind: str, *args: Arg) -> Value:
        """A draw of the type of the first result."""
        return self.draws.draw(kind, self.type, *args)

    def emit(self, name: str, *args: Arg, type_: TensorType | None = None) -> Value:
        """An op with one result, by default of the type of the first result."""
        (value,) = self.tape.emit(f"aten.{name}", args, (), (type_ or self.type,))
        return value

    def scaled(self, value: Value, scale: Arg, shift: Arg) -> Value:
        """`value * scale + shift`, without what changes nothing."""
        if scale != 1:
            value = self.emit("mul.Tensor", value, scale)
        return value if shift == 0 else self.emit("add.Tensor", value, shift)

    def cast(self, value: Value, dtype: str) -> Value:
        """`value` in another dtype."""
        if value.tensor.dtype == dtype:
            return value
        type_ = TensorType(dtype, value.tensor.shape)
        kwargs: KwArgs = (("dtype", DType(dtype)),)
        (value,) = self.tape.emit("aten._to_copy", (value,), kwargs, (type_,))
        return value


Rule = Callable[[Request], Value | tuple[Value, ...]]


def record_random(
    name: str,
    args: tuple[Arg, ...],
    kwargs: KwArgs,
    types: tuple[Type, ...],
    draws: Draws,
    tape: Tape,
) -> tuple[Value, ...]:
    """Records the random op `name`; gives its results.

    Raises:
        CaptureError: the op has no rule.
    """
    request = Request(args, kwargs, types, draws, tape)
    if name in _DROPOUT and not request.arg(_DROPOUT[name], "dropout_p", 0.0):
        return tape.emit(name, args, kwargs, types)
    if name not in RULES:
        raise CaptureError(
            f"{name} draws random numbers in a way that is not known here",
            where=user_line(),
            fix="make it of uniform, normal or exponential numbers, or draw it outside of the "
            "step and pass it as an argument",
        )
    result = RULES[name](request)
    return result if isinstance(result, tuple) else (result,)


_DROPOUT = {"aten._scaled_dot_product_flash_attention_for_cpu": 3}
"""Ops that draw for their dropout alone, and where they have its probability."""


def _uniform(of: Request) -> Value:
    low, high = of.arg(1, "from", 0.0), of.arg(2, "to", 1.0)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    return of.scaled(of.draw("uniform"), high - low, low)


def _normal(of: Request) -> Value:
    return of.scaled(of.draw("normal"), of.arg(2, "std", 1.0), of.arg(1, "mean", 0.0))


def _normal_around(of: Request) -> Value:
    """Mean, deviation or both are tensors."""
    return of.scaled(of.draw("normal"), of.arg(1, "std", 1.0), of.arg(0, "mean", 0.0))


def _log_normal(of: Request) -> Value:
    std, mean = of.arg(2, "std", 2.0), of.arg(1, "mean", 1.0)
    return of.emit("exp", of.scaled(of.draw("normal"), std, mean))


def _cauchy(of: Request) -> Value:
    """The tangent of an angle, of which all are as likely."""
    angle = of.scaled(of.draw("uniform"), math.pi, -math.pi / 2)
    return of.scaled(of.emit("tan", angle), of.arg(2, "sigma", 1.0), of.arg(1, "median", 0.0))


def _exponential(of: Request) -> Value:
    rate = of.arg(1, "lambd", 1.0)
    value = of.draw("exponential")
    return value if rate == 1 else of.emit("div.Tensor", value, rate)


def _geometric(of: Request) -> Value:
    """How many whole spans of an exponential number, and one."""
    p = of.arg(1, "p")
    assert isinstance(p, int | float)
    floating = TensorType("float64", of.type.shape)
    draw = of.draws.draw("exponential", floating)
    spans = of.emit("div.Tensor", draw, -math.log1p(-p), type_=floating)
    count = of.emit("add.Tensor", of.emit("floor", spans, type_=floating), 1, type_=floating)
    return of.cast(count, of.type.dtype)


def _bernoulli(of: Request) -> Value:
    """One probability for all."""
    return of.draw("bernoulli", of.arg(1, "p", 0.5))


def _bernoulli_each(position: int) -> Rule:
    """A tensor of probabilities."""

    def rule(of: Request) -> Value:
        chances = of.args[position]
        assert isinstance(chances, Value)
        draw = of.draws.draw("uniform", TensorType(chances.tensor.dtype, of.type.shape))
        hit = of.emit("lt.Tensor", draw, chances, type_=TensorType("bool", of.type.shape))
        return of.cast(hit, of.type.dtype)

    return rule


def _dropout(of: Request) -> tuple[Value, ...]:
    """What is kept, scaled, and the mask."""
    x, p, train = of.args[0], of.args[1], of.arg(2, "train")
    assert isinstance(x, Value)
    assert isinstance(p, int | float)
    kind = TensorType("bool", of.type.shape)
    if train is False:
        kept = of.emit("full_like", x, 1, type_=of.type)
        return of.emit("clone", x), of.cast(kept, "bool")
    mask = of.draws.draw("bernoulli", kind, 1 - p)
    scale = 1 / (1 - p) if p < 1 else 0.0
    return of.emit("mul.Tensor", of.emit("mul.Tensor", x, mask), scale), mask


def _rrelu(of: Request) -> tuple[Value, ...]:
    """A slope of its own for each negative number; the slopes are handed out."""
    x, low, high = of.args[0], of.arg(2, "lower", 1 / 8), of.arg(3, "upper", 1 / 3)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    slope = of.scaled(of.draw("uniform"), high - low, low)
    negative = of.emit("le.Scalar", x, 0, type_=TensorType("bool", of.type.shape))
    noise = of.emit("where.ScalarOther", negative, slope, 1.0)
    return of.emit("mul.Tensor", x, noise), noise


def _integer(low: tuple[int, str] | None, high: tuple[int, str]) -> Rule:
    """Arguments by position and name; without `low` from zero."""

    def rule(of: Request) -> Value:
        return of.draw("integer", 0 if low is None else of.arg(*low), of.arg(*high))

    return rule


_EXACT = {"float64": 2**53, "float32": 2**24, "float16": 2**11, "bfloat16": 2**8, "bool": 1}
"""Up to where a dtype that is no integer holds every whole number."""


def _random(of: Request) -> Value:
    """Any whole number that the dtype holds, or from a bound up."""
    dtype = of.type.dtype
    bits = "".join(filter(str.isdigit, dtype))
    signed = dtype.startswith("int")
    top = _EXACT.get(dtype) or 2 ** (int(bits) - signed) - 1
    low, high = of.arg(1, "from", 0), of.arg(2, "to")
    return of.draw("integer", low, top + 1 if high is None else high)


def _permutation(of: Request) -> Value:
    """The places of large whole numbers, in their order."""
    type_ = TensorType(_INT64, of.type.shape)
    keys = of.draws.draw("integer", type_, 0, _LARGEST_KEY)
    _, places = of.tape.emit("aten.sort", (keys,), (), (type_, type_))
    return of.cast(places, of.type.dtype)


def _multinomial(of: Request) -> Value:
    """The largest of weight over an exponential number: the first of independent arrivals.

    Without replacement the next ones are the next largest; with it each is a race of its own.
    """
    weights, count = of.args[0], of.args[1]
    assert isinstance(weights, Value)
    assert isinstance(count, int)
    type_ = weights.tensor
    if not of.arg(2, "replacement", False) or count == 1:
        arrival = of.draws.draw("exponential", type_)
        race = of.emit("div.Tensor", weights, arrival, type_=type_)
        values = TensorType(type_.dtype, of.type.shape)
        _, places = of.tape.emit("aten.topk", (race, count), (), (values, of.type))
        return places
    rows = TensorType(type_.dtype, (*type_.shape[:-1], 1, type_.shape[-1]))
    races = TensorType(type_.dtype, (*type_.shape[:-1], count, type_.shape[-1]))
    row = of.emit("unsqueeze", weights, -2, type_=rows)
    race = of.emit("div.Tensor", row, of.draws.draw("exponential", races), type_=races)
    return of.emit("argmax", race, -1)


RULES: dict[str, Rule] = {
    "aten.rand": lambda of: of.draw("uniform"),
    "aten.rand_like": lambda of: of.draw("uniform"),
    "aten.uniform": _uniform,
    "aten.randn": lambda of: of.draw("normal"),
    "aten.randn_like": lambda of: of.draw("normal"),
    "aten.normal_functional": _normal,
    "aten.normal.float_float": _normal_around,
    "aten.normal.Tensor_float": _normal_around,
    "aten.normal.float_Tensor": _normal_around,
    "aten.normal.Tensor_Tensor": _normal_around,
    "aten.log_normal": _log_normal,
    "aten.cauchy": _cauchy,
    "aten.exponential": _exponential,
    "aten.geometric": _geometric,
    "aten.bernoulli": _bernoulli_each(0),
    "aten.bernoulli.p": _bernoulli,
    "aten.bernoulli.Tensor": _bernoulli_each(1),
    "aten.native_dropout": _dropout,
    "aten.rrelu_with_noise_functional": _rrelu,
    "aten.randint": _integer(None, (0, "high")),
    "aten.randint.low": _integer((0, "low"), (1, "high")),
    "aten.randint_like": _integer(None, (1, "high")),
    "aten.randint_like.low_dtype": _integer((1, "low"), (2, "high")),
    "aten.random": _random,
    "aten.random.from": _random,
    "aten.random.to": lambda of: of.draw("integer", 0, of.args[1]),
    "aten.randperm": _permutation,
    "aten.multinomial": _multinomial,
}
"""By functional name: the results, recorded."""
