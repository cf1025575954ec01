"""A closed loop of requests: against its own formula, and against one that is played."""

from dataclasses import replace

import pytest

from supernode.accuracy.case import Serving, Step
from supernode.accuracy.loop import Pass, decoding, settled, token
from supernode.models import recipe


def serving(
    requests: int, output: float, newcomers: int = 1, *, apart: bool = False, **how: float | bool
) -> Serving:
    shape = recipe("llama3-8b").with_shape({}).shape
    assert shape is not None
    decode = Step(
        shape=shape,
        dtype="bfloat16",
        phase="decode",
        batch=requests,
        sequence=1000,
        layout="",
        chips=1,
    )
    prompts = None if apart else replace(decode, phase="prefill", batch=newcomers)
    return Serving(decode=decode, prompts=prompts, output=output, **how)  # type: ignore[arg-type]


DECODE = Pass(time_s=10.0, attention_s=2.0)


def test_where_others_prefill_a_token_is_a_pass() -> None:
    assert token(serving(64, 100, apart=True), 64, DECODE, 0.0).time_s(DECODE, 0.0) == 10.0


def test_prompts_of_their_own_stop_all_others() -> None:
    spec = serving(50, 100, mixed=False)
    assert token(spec, 50, DECODE, 40.0).time_s(DECODE, 40.0) == 10 + 50 / 100 * 40


def test_prompts_beside_tokens_take_a_pass_that_reads_the_weights_anyway() -> None:
    spec = serving(50, 100)
    longer = 40 * (1 + 50 / 1000) + 2  # so many more tokens, and the attention of the others
    want = 0.5 * 10 + 0.5 * longer
    assert token(spec, 50, DECODE, 40.0).time_s(DECODE, 40.0) == pytest.approx(want)
    # It takes no longer than both apart, and nothing where the others need the pass anyway.
    many = serving(900, 1800)
    assert token(many, 900, DECODE, 40.0).time_s(DECODE, 40.0) == pytest.approx(10 + 0.5 * 40)
    assert token(spec, 50, DECODE, 5.0).time_s(DECODE, 5.0) == 10.0


def played(requests: int, output: int, newcomers: int, prompt_s: float, decode_s: float) -> float:
    """The mean time of a token of requests that all begin at once and are all alike, where prompts
    go first and stop all others; each request comes again as soon as it is done."""
    now, waiting, left = 0.0, list(range(requests)), dict[int, int]()
    first, times = dict[int, float](), list[float]()
    while len(times) < 10 * requests:
        if waiting:
            taken, waiting = waiting[:newcomers], waiting[newcomers:]
            now += prompt_s
            left |= dict.fromkeys(taken, output)
            first |= dict.fromkeys(taken, now)
            continue
        now += decode_s
        for request in list(left):
            left[request] -= 1
            if not left[request]:
                del left[request]
                times.append((now - first[request]) / output)
                waiting.append(request)
    return sum(times) / len(times)


@pytest.mark.parametrize("newcomers", [1, 4])
def test_requests_in_step_see_half_of_the_prefills(newcomers: int) -> None:
    spec = serving(64, 100, newcomers, mixed=False, together=True)
    got = token(spec, 64, DECODE, 40.0).time_s(DECODE, 40.0)
    assert got == pytest.approx(played(64, 100, newcomers, 40.0, 10.0), rel=0.05)


def test_as_many_decode_as_littles_law_says() -> None:
    spec = serving(100, 50, apart=True, wait_s=500.0)
    assert decoding(spec, 10.0, 0.0) == 100 * 500 / (500 + 500)
    assert decoding(replace(spec, wait_s=0.0), 10.0, 0.0) == 100
    # The pass of the own prompt is none that others miss a request in.
    assert decoding(serving(100, 50, wait_s=500.0), 10.0, 500.0) == 100
    assert decoding(serving(100, 50, wait_s=500.0, mixed=False, together=True), 10.0, 0.0) == 100


def test_what_settles_is_a_number_that_its_own_time_gives() -> None:
    spec = serving(100, 50, apart=True, wait_s=500.0)
    few, all_ = Pass(time_s=5.0, attention_s=1.0), Pass(time_s=10.0, attention_s=2.0)
    batch = settled(spec, 40.0, few, all_, 0.0)
    at = few.towards(all_, (batch - 40) / 60)
    assert decoding(spec, at.time_s, 0.0) == pytest.approx(batch, rel=1e-3)
