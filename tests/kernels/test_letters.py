"""Stages of a pipeline as generated code: what one sends the other gets, whoever overwrites it."""

from collections import defaultdict

import torch

from kernels.programs import Body, f32, program
from supernode.ir import HostType, Type, Value
from supernode.kernels import GeneratedStep, generate
from supernode.plan import Mesh

MESH = Mesh((("pp", 2), ("dp", 2)))


class Letters:
    """Those of all ranks of one process."""

    def __init__(self) -> None:
        self.sent: dict[tuple[int, int, int], torch.Tensor] = {}
        self.order: dict[int, list[int]] = defaultdict(list)

    def of(self, rank: int) -> "Ends":
        return Ends(self, rank)


class Ends:
    def __init__(self, letters: Letters, rank: int) -> None:
        self.letters, self.rank = letters, rank

    def send(self, x: torch.Tensor, rank: int, key: int) -> None:
        self.letters.sent[self.rank, rank, key] = x.clone()
        self.letters.order[self.rank].append(key)

    def receive(self, rank: int, key: int) -> torch.Tensor:
        return self.letters.sent.pop((rank, self.rank, key))


def send(body: Body, value: Value, stage: int, key: int) -> None:
    body.many("fabric.send", ((value,), "pp", stage, key), ())


def receive(body: Body, type: Type, stage: int, key: int) -> Value:
    return body("fabric.receive", (), "pp", stage, key, type=type)


def made(body: Body, *outputs: Value, rank: int, letters: Letters) -> GeneratedStep:
    whole = program(body.block(*outputs))
    return generate(whole, letters=letters.of(rank), mesh=MESH, rank=rank)


def test_what_is_sent_may_be_overwritten_at_once_and_what_arrives_too():
    letters = Letters()
    first = Body("main", f32(4))
    y = first("aten.mul.Tensor", first.inputs[0], 2.0)
    send(first, y, 1, 30)
    z = first("aten.neg", y)
    second = Body("main", f32(4))
    got = receive(second, f32(4), 0, 30)
    out = second("aten.add.Tensor", second("aten.exp", got), second.inputs[0])
    # dp is the last axis: the peers along pp of ranks 1 and 3.
    sender = made(first, z, rank=1, letters=letters)
    receiver = made(second, out, rank=3, letters=letters)
    x = torch.arange(4.0)
    (sent,) = sender([x])
    (result,) = receiver([x])
    assert torch.equal(sent, -2 * x)
    assert torch.equal(result, (2 * x).exp() + x)
    assert "v1.neg_()" in sender.source
    assert "v1.exp_()" in receiver.source


def test_a_letter_is_no_input_and_goes_to_its_destination_by_a_copy():
    letters = Letters()
    body = Body("main", f32(4))
    got = receive(body, f32(4), 1, 5)
    whole = program(body.block(got), updates=(0,))
    step = generate(whole, letters=letters.of(0), mesh=MESH, rank=0)
    letters.of(2).send(torch.ones(4), 0, 5)
    out = torch.zeros(4)
    (result,) = step([torch.zeros(4)], [out])
    assert result is out
    assert out.tolist() == [1.0] * 4


def test_host_numbers_are_letters_too():
    letters = Letters()
    first, second = Body("main", HostType()), Body("main", f32(2))
    send(first, first("host.mul", first.inputs[0], 1.1, type=HostType()), 1, 2)
    count = first("host.add", first.inputs[0], 1, type=HostType("int64"))
    send(first, count, 1, 3)
    scale = receive(second, HostType(), 0, 2)
    whole = receive(second, HostType("int64"), 0, 3)
    y = second("aten.mul.Tensor", second.inputs[0], scale)
    assert made(first, count, rank=0, letters=letters)([7]) == (8,)
    got = made(second, y, whole, rank=2, letters=letters)([torch.ones(2)])
    assert got[1] == 8
    assert isinstance(got[1], int)
    assert torch.equal(got[0], torch.ones(2) * (7 * 1.1))


def test_letters_are_timed_and_told_like_any_op():
    letters = Letters()
    first = Body("main", f32(4))
    send(first, first.inputs[0], 1, 9)
    send(first, first.inputs[0], 1, 8)
    step = made(first, first("aten.neg", first.inputs[0]), rank=0, letters=letters)
    _, spans = step.traced([torch.ones(4)])
    assert [span.op.name for span in spans] == ["fabric.send", "fabric.send", "aten.neg"]
    assert letters.order[0] == [9, 8]
    assert "send(v0, 2, 9)  # model.py:1, in main.0" in step.source
