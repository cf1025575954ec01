"""Mailboxes: letters of a step, sent without waiting, received in any order, step after step."""

import time
from dataclasses import replace

import pytest
import torch

from supernode.errors import InputError
from supernode.run.fabric import FabricAborted, FabricTimeout, Letter, Traffic

BOTH = (0, 1)
SOON_S = 1.0


def letter(source: int, target: int, key: int, like: torch.Tensor) -> Letter:
    return Letter(source=source, target=target, key=key, shape=tuple(like.shape), dtype=like.dtype)


def opened(letters, group=BOTH):
    """Steps that make a mailbox and begin its first step: results 0 and 1."""
    return [("mailbox", (letters, group)), begin(1)]


def begin(number: int):
    return (".begin", (("result", 0), number))


def send(x, rank: int, key: int):
    return (".send", (("result", 0), x, rank, key))


def receive(rank: int, key: int):
    return (".receive", (("result", 0), rank, key))


@pytest.fixture
def pair(pair):
    """Two ranks whose steps begin at 1."""
    pair.arenas.reset()
    return pair


@pytest.fixture
def square(square):
    """Four ranks whose steps begin at 1."""
    square.arenas.reset()
    return square


X = torch.arange(100_000.0)
Y = torch.arange(12).view(3, 4)
Z = torch.tensor(2.5, dtype=torch.bfloat16)
SENT = [letter(0, 1, 7, X), letter(0, 1, 3, Y), letter(0, 1, 9, Z), letter(1, 0, 7, Y)]


@pytest.mark.parametrize("order", [(7, 3, 9), (9, 3, 7), (3, 9, 7)])
def test_letters_are_received_in_another_order_than_they_are_sent(pair, order):
    sender = [
        *opened(SENT),
        *(send(x, 1, key) for x, key in ((X, 7), (Y, 3), (Z, 9))),
        receive(1, 7),
    ]
    receiver = [*opened(SENT), *(receive(0, key) for key in order), send(Y + 1, 0, 7)]
    left, right = pair.run([sender, receiver])
    for key, got in zip(order, right[2:5], strict=True):
        want = {7: X, 3: Y, 9: Z}[key]
        assert got.dtype == want.dtype
        assert torch.equal(got, want)
    assert torch.equal(left[5], Y + 1)


def test_a_sender_waits_for_nobody_and_what_it_sent_is_free_at_once(pair):
    letters = [letter(0, 1, key, X) for key in range(20)]
    sender = [*opened(letters), (".clone", (X,))]
    for key in range(20):
        sender += [(".fill_", (("result", 2), float(key))), send(("result", 2), 1, key)]
    receiver = [*opened(letters), ("wait", (200, 1)), *(receive(0, key) for key in range(20))]
    # The receiver takes nothing before the sender is through.
    _, right = pair.run([[*sender, ("signal", (1, 200, 1))], receiver])
    for key, got in enumerate(right[3:]):
        assert got.unique().tolist() == [float(key)]


def test_a_strided_tensor_arrives_contiguous(pair):
    sender = [*opened([letter(0, 1, 0, Y.t())]), (".t", (Y,)), send(("result", 2), 1, 0)]
    receiver = [*opened([letter(0, 1, 0, Y.t())]), receive(0, 0), (".stride", (("result", 2),))]
    _, right = pair.run([sender, receiver])
    assert torch.equal(right[2], Y.t())
    assert right[3] == (3, 1)


def test_parts_of_a_piece_come_to_lie_side_by_side(square):
    """Ranks 0 and 1 send a row and the rest of what rank 2 gets; rank 3 stands by."""
    parts = [Y[:1], Y[1:]]
    boxes = [(slice(0, 1), slice(0, 4)), (slice(1, 3), slice(0, 4))]
    letters = [
        replace(letter(rank, 2, 7, parts[rank]), piece=(3, 4), box=boxes[rank]) for rank in BOTH
    ]
    letters += [letter(0, 2, 8, X)]
    group = (0, 1, 2, 3)
    steps: list[list] = [[*opened(letters, group)] for _ in group]
    for rank in BOTH:
        steps[rank] += [send(parts[rank], 2, 7)]
    steps[0] += [send(X, 2, 8)]
    steps[2] += [(".receive_piece", (("result", 0), (0, 1), 7)), receive(0, 8)]
    steps[2] += [(".__getattribute__", (("result", 0), "room_bytes"))]
    _, _, got, _ = square.run(steps)
    assert torch.equal(got[2], Y)
    assert torch.equal(got[3], X)
    assert got[4] - X.nbytes - Y.nbytes < 2 * 64  # each is filled up to 64 bytes


def take(steps: list, rank: int, key: int) -> None:
    """Receives a letter and keeps a copy, which the next step leaves alone."""
    steps.append(receive(rank, key))
    steps.append((".clone", (("result", len(steps) - 1),)))


@pytest.mark.parametrize("late", BOTH)
def test_a_step_never_gets_the_letters_of_another(pair, late):
    """Whichever rank is late, in each of ten steps."""
    letters = [letter(0, 1, 0, Y), letter(0, 1, 1, Y), letter(1, 0, 2, Y)]
    left, right = [*opened(letters)], [*opened(letters)]
    for number in range(2, 12):
        for steps in (left, right):
            steps += [begin(number)]
        (left, right)[late].append(("sleep", (0.002,)))
        left += [send(Y + number, 1, 0), send(Y * number, 1, 1)]
        take(left, 1, 2)
        take(right, 0, 1)
        take(right, 0, 0)
        right += [send(Y - number, 0, 2)]
        for steps in (left, right):
            steps += [("barrier", (BOTH,))]
    results = pair.run([left, right])
    kept = [
        [got for (name, _), got in zip(steps, found, strict=True) if name == ".clone"]
        for steps, found in zip((left, right), results, strict=True)
    ]
    for i, number in enumerate(range(2, 12)):
        assert torch.equal(kept[0][i], Y - number)
        assert torch.equal(kept[1][2 * i], Y * number)
        assert torch.equal(kept[1][2 * i + 1], Y + number)


def test_a_receiver_may_overwrite_what_it_got(pair):
    letters = [letter(0, 1, 0, Y)]
    sender = [*opened(letters), send(Y, 1, 0), ("barrier", (BOTH,)), begin(2), send(Y, 1, 0)]
    receiver = [*opened(letters), receive(0, 0), (".zero_", (("result", 2),)), ("barrier", (BOTH,))]
    _, right = pair.run([sender, [*receiver, begin(2), receive(0, 0)]])
    assert torch.equal(right[6], Y)


def test_a_pipe_of_four_and_two_mailboxes_side_by_side(square):
    """Ranks 0, 1, 2, 3 in a chain; then 0 with 2 and 1 with 3."""
    chain = [letter(rank, rank + 1, 5, X) for rank in range(3)]
    group = (0, 1, 2, 3)
    programs: list[list] = []
    for rank in range(4):
        peer = (rank + 2) % 4
        across = [letter(min(rank, peer), max(rank, peer), 5, Y)]
        steps: list = [*opened(chain, group)]
        steps += [receive(rank - 1, 5)] if rank else [(".clone", (X,))]
        steps += [(".add", (("result", 2), 1.0))]
        steps += [send(("result", 3), rank + 1, 5)] if rank < 3 else []
        steps += [("barrier", (group,)), ("mailbox", (across, (min(rank, peer), max(rank, peer))))]
        box = ("result", len(steps) - 1)
        steps += [(".begin", (box, 2))]
        steps += [(".send", (box, Y * rank, peer, 5))] if rank < 2 else []
        steps += [(".receive", (box, peer, 5))] if rank >= 2 else []
        programs.append(steps)
    results = square.run(programs)
    for rank in range(4):
        assert torch.equal(results[rank][3], X + rank + 1)
    for rank in (2, 3):
        assert torch.equal(results[rank][-1], Y * (rank - 2))


def test_a_chip_with_little_to_receive_has_the_same_arena_layout(pair):
    letters = [letter(0, 1, 0, X), letter(1, 0, 0, Z)]
    programs = []
    for rank in BOTH:
        steps = [
            *opened(letters),
            ("empty", ((4,), torch.float32)),
            (".fill_", (("result", 2), float(rank))),
            send((X, Z)[rank], 1 - rank, 0),
            receive(1 - rank, 0),
            ("barrier", (BOTH,)),
            ("peer", (("result", 2), 1 - rank)),
            ("barrier", (BOTH,)),
        ]
        programs.append(steps)
    for rank, results in enumerate(pair.run(programs)):
        assert torch.equal(results[5], (Z, X)[rank])
        assert results[7].tolist() == [1.0 - rank] * 4


@pytest.fixture
def broken(square):
    """A crew that the test may leave in the middle of a step."""
    yield square
    square.arenas.reset()
    assert square.run([[("barrier", ((0, 1, 2, 3),))]] * 4) == [[None]] * 4


def test_an_abort_stops_a_receiver_and_a_new_start_takes_no_stale_letter(broken):
    letters = [letter(0, 1, 0, Y), letter(0, 1, 1, Y)]
    sender = [*opened(letters), send(Y, 1, 0)]
    receiver = [*opened(letters), receive(0, 0), receive(0, 1)]
    # Ranks 2 and 3 stand for another pipe, whose letters are as large.
    others = [[("mailbox", ([letter(2, 3, 0, Y), letter(2, 3, 1, Y)], (2, 3)))]] * 2
    broken.start([sender, receiver, *others])
    time.sleep(0.05)
    start = time.perf_counter()
    broken.arenas.abort(0, "out of memory")
    _, error, *_ = broken.replies(SOON_S)
    assert time.perf_counter() - start < SOON_S
    assert isinstance(error, FabricAborted)
    assert error.wrong == "the run was stopped: rank 0: out of memory"
    broken.arenas.reset()
    # Step 1 again: the letter that had come before the abort does not count.
    again = [*opened(letters), ("sleep", (0.05,)), send(Y + 1, 1, 0), send(Y + 2, 1, 1)]
    _, right, *_ = broken.run([again, [*opened(letters), receive(0, 0), receive(0, 1)], *others])
    assert torch.equal(right[2], Y + 1)
    assert torch.equal(right[3], Y + 2)


@pytest.mark.slow
def test_a_letter_that_never_comes_is_missed_at_the_deadline(new_crew):
    crew = new_crew(2, deadline_s=0.2)
    letters = [letter(0, 1, 0, Y)]
    crew.start([[*opened(letters)], [*opened(letters), receive(0, 0)]])
    error = crew.replies()[1]
    assert isinstance(error, FabricTimeout)
    assert error.asked == "letter 0 from rank 0"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (send(Y, 1, 4), "no letter 4 from rank 0 to rank 1 was announced"),
        (receive(1, 3), "no letter 3 from rank 1 to rank 0 was announced"),
        (send(X, 1, 3), r"letter 3 is torch.float32\[100000\], announced as torch.int64\[3, 4\]"),
        (send(Y.float(), 1, 3), r"letter 3 is torch.float32\[3, 4\], announced as torch.int64"),
    ],
)
def test_what_was_not_announced_is_refused(pair, step, message):
    with pytest.raises(InputError, match=message):
        pair.run([[*opened(SENT), step], opened(SENT)])


def test_stats_count_letters_as_puts(pair):
    letters = [letter(0, 1, 0, Y)]
    steps = [*opened(letters), ("stats", ()), send(Y, 1, 0), ("stats", ())]
    left, _ = pair.run([steps, [*opened(letters), receive(0, 0)]])
    before = left[2].get("put", Traffic(calls=0, sent_bytes=0))
    after = left[4]["put"]
    assert (after.calls - before.calls, after.sent_bytes - before.sent_bytes) == (1, Y.nbytes)
