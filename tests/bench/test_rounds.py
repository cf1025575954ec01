"""Rounds: sides take turns, and rounds in which others disturbed are taken again."""

from collections.abc import Callable, Iterable
from time import sleep

from bench.rounds import (
    ATTEMPTS,
    Round,
    Sides,
    alternate,
    by_side,
    quiet_rounds,
    told,
    watched_round,
)


def test_sides_take_turns_and_the_first_changes():
    called: list[str] = []

    def side(name: str) -> float:
        called.append(name)
        return float(len(called))

    times = alternate({"ours": lambda: side("ours"), "theirs": lambda: side("theirs")}, 2)
    assert called == ["ours", "theirs", "theirs", "ours"]
    assert times == {"ours": (1.0, 4.0), "theirs": (2.0, 3.0)}


def scripted(shares: Iterable[float]) -> Callable[[Sides, int], Round]:
    """Rounds numbered from 0, in which others use the given shares of the cores."""
    left = iter(shares)

    def take(sides: Sides, number: int) -> Round:
        return Round(times={name: float(number) for name in sides}, others_share=next(left))

    return take


SIDES: Sides = {"ours": float, "theirs": float}


def test_disturbed_rounds_are_taken_again():
    kept, taken = quiet_rounds(SIDES, 3, scripted([0.0, 0.5, 0.02, 0.2, 0.05]))
    assert taken == 5
    assert by_side([each.times for each in kept])["ours"] == (0.0, 2.0, 4.0)
    assert told(kept, taken) == (
        "3 of 5 rounds kept, others used at most 5.0% of the cores in them"
    )


def test_on_a_busy_host_the_quietest_rounds_are_kept_and_it_is_told():
    kept, taken = quiet_rounds(SIDES, 2, scripted([0.9, 0.3, 0.8, 0.4, 0.7, 0.6]))
    assert taken == ATTEMPTS * 2
    assert [each.others_share for each in kept] == [0.3, 0.4]
    assert "at most 40.0% of the cores in them: **the host was not quiet**" in told(kept, taken)


def test_a_round_says_what_others_used():
    seen = watched_round({"ours": lambda: sleep(0.05) or 1.0}, 0)
    assert seen.times == {"ours": 1.0}
    assert 0 <= seen.others_share <= 1.5  # the clock of /proc/stat has coarse ticks
