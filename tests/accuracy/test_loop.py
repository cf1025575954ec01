"""A closed loop of requests: against its own formula, and against one that is played."""

from dataclasses import replace
from statistics import mean

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


def played(
    requests: int,
    output: int,
    newcomers: int,
    prompt_s: float,
    decode_s: float,
    apart_s: float = 0.0,
) -> tuple[float, float]:
    """The mean time of a token, and the mean wait for the first, of requests that are all alike,
    where prompts go first and stop all others. They begin `apart_s` from each other, and each
    comes again as soon as it is done."""
    now, waiting, left = 0.0, [(i * apart_s, i) for i in range(requests)], dict[int, int]()
    first, times, waits = dict[int, float](), list[float](), list[float]()
    while len(times) < 10 * requests:
        here = [one for one in sorted(waiting) if one[0] <= now]
        if here or not left:
            taken = here[:newcomers] or [min(waiting)]
            now = max(now, taken[0][0]) + prompt_s
            for came, request in taken:
                waiting.remove((came, request))
                left[request], first[request] = output, now
                waits.append(now - came)
            continue
        now += decode_s
        for request in list(left):
            left[request] -= 1
            if not left[request]:
                del left[request]
                times.append((now - first[request]) / output)
                waiting.append((now, request))
    settled = slice(3 * requests, None)
    return mean(times[settled]), mean(waits[settled])


@pytest.mark.parametrize("newcomers", [1, 4])
def test_requests_in_step_see_half_of_the_prefills(newcomers: int) -> None:
    spec = serving(64, 100, newcomers, mixed=False, together=True)
    got = token(spec, 64, DECODE, 40.0).time_s(DECODE, 40.0)
    want, wait = played(64, 100, newcomers, 40.0, 10.0)
    assert got == pytest.approx(want, rel=0.05)
    # A wait as long as that of requests in step, or one that a queue makes longer, is no other.
    for longer in (1.0, 3.0):
        waits = replace(spec, wait_s=longer * wait)
        assert token(waits, 64, DECODE, 40.0).time_s(DECODE, 40.0) == pytest.approx(got, rel=0.05)


@pytest.mark.parametrize("apart_s", [60.0, 45.0])
def test_requests_that_wait_less_than_those_in_step_see_more_prefills(apart_s: float) -> None:
    want, wait = played(64, 300, 1, 40.0, 10.0, apart_s)
    spec = serving(64, 300, mixed=False, together=True, wait_s=wait)
    assert wait < 0.4 * 64 * 40.0
    assert token(spec, 64, DECODE, 40.0).time_s(DECODE, 40.0) == pytest.approx(want, rel=0.05)


@pytest.mark.parametrize("mixed", [True, False])
def test_a_host_that_schedules_afterwards_keeps_the_chips_waiting(mixed: bool) -> None:
    for spec in (serving(50, 100, mixed=mixed), serving(50, 100, apart=True)):
        made = token(replace(spec, host_s=0.1), 50, DECODE, 40.0)
        without = token(spec, 50, DECODE, 40.0)
        assert made.host_s == pytest.approx(50 * 0.1)
        assert made.time_s(DECODE, 40.0) - without.time_s(DECODE, 40.0) == pytest.approx(5.0)


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
