from dataclasses import replace
from itertools import pairwise

from hypothesis import given

from supernode.ir import CALL, Block, Op, Port, Program, Value
from supernode.plan.memory import PARTS, RUN_PARTS, memory, run_memory
from vectors import inlined, is_view, op, param, program, programs, vector


def test_a_value_lives_from_its_op_to_its_last_use() -> None:
    w, a, b, c = (vector(i, size) for i, size in enumerate((100, 10, 20, 3)))
    use = memory(program(((w, param()),), (op("f", a, w), op("f", b, a), op("f", c, b))), is_view)
    assert use.timeline == (110, 130, 123)
    assert use.peak_bytes == 130


def test_a_view_takes_no_memory_and_keeps_its_base_alive() -> None:
    w, a, b, c, d = (vector(i, size) for i, size in enumerate((100, 10, 10, 20, 3)))
    ops = (op("f", a, w), op("view", b, a), op("f", c, w), op("f", d, b))
    # c is never used: it goes at once. a goes after d, which reads it through b.
    assert memory(program(((w, param()),), ops), is_view).timeline == (110, 110, 130, 113)
    copies = tuple(replace(o, name="f") for o in ops)
    assert memory(program(((w, param()),), copies), is_view).timeline == (110, 120, 130, 113)


def test_parts_of_a_training_step_at_its_peak() -> None:
    w, s, x = vector(0, 100), vector(1, 200), vector(2, 7)
    h, y, dw, w2, s2 = (vector(3 + i, size) for i, size in enumerate((10, 1, 100, 100, 200)))
    use = memory(
        program(
            (
                (w, param()),
                (s, Port(name="exp_avg", role="state", of="layers.0.weight")),
                (x, Port(name="tokens", role="arg")),
            ),
            (
                op("f", h, w, x),
                op("f", y, h),
                op("f", dw, h, y, phase="backward"),
                op("f", s2, s, dw, phase="optimizer"),
                op("f", w2, w, s2, dw, phase="optimizer"),
            ),
            ((w2, 0), (s2, 1)),
        ),
        is_view,
    )
    # At the peak s and its next value coexist; h and y are gone.
    assert use.peak_bytes == 100 + 200 + 200 + 100 + 7
    assert use.parts == {
        "parameters": 100,
        "optimizer state": 400,
        "gradients": 100,
        "activations": 0,
        "temporaries": 0,
        "inputs": 7,
    }
    assert tuple(use.parts) == PARTS
    # Then w2 is made while w is still read; after it, as much is in use as before the step.
    assert use.timeline[-1] == 100 + 100 + 200 + 100 + 7


def test_activations_are_named_with_the_modules_that_made_them() -> None:
    w = vector(0, 1)
    a, b, c = vector(1, 50), vector(2, 60), vector(3, 1000)
    ops = (
        op("f", a, w, module="layers.0.mlp"),
        op("f", b, a, module="layers.1.mlp"),
        op("f", c, a, b, phase="backward", module="layers.1.mlp"),
    )
    use = memory(program(((w, param()),), ops), is_view)
    assert use.parts["activations"] == 110
    assert use.parts["temporaries"] == 1000
    assert use.modules == (("layers.*.mlp", 1110), ("layers.*", 1))


def test_what_a_collective_reads_stays_until_its_result_is_used() -> None:
    w, a, g, b, c = (vector(i, size) for i, size in enumerate((0, 10, 40, 5, 1)))
    ops = (op("f", a, w), op("fabric.all_gather", g, a), op("f", b, w), op("f", c, g))
    assert memory(program(((w, param()),), ops), is_view).timeline == (10, 50, 55, 51)
    local = tuple(replace(o, name="f") for o in ops)
    assert memory(program(((w, param()),), local), is_view).timeline == (10, 50, 45, 41)


def pair_program(*, first: Value, second: Value, reads: int) -> Program:
    """A call of a block of two inputs and outputs (one a view of the other), then one use."""
    x, y, z, view = vector(0, 8), vector(1, 8), vector(2, 30), vector(3, 30)
    body = (op("f", z, x, y), op("view", view, z))
    block = Block(name="pair", inputs=(x, y), ops=body, outputs=(z, view))
    results = (vector(10, 30), vector(11, 30))
    call = Op(name=CALL, block="pair", args=(first, second), outputs=results)
    ops = (
        op("f", vector(1, 8), vector(0, 0)),
        op("f", vector(2, 8), vector(0, 0)),
        call,
        op("f", vector(12, 1), vector(0, 0)),
        op("f", vector(13, 2), results[reads]),
    )
    return program(((vector(0, 0), param()),), ops, (), (block,))


def test_a_value_handed_over_twice_is_freed_once() -> None:
    once = pair_program(first=vector(1, 8), second=vector(1, 8), reads=0)
    # The second value is never read: it goes at once.
    assert memory(once, is_view).timeline == (8, 16, 38, 30, 31, 32)
    assert memory(inlined(once), is_view).timeline == (8, 16, 38, 30, 31, 32)


def test_either_of_two_results_with_one_storage_keeps_it_alive() -> None:
    for reads in (0, 1):
        both = pair_program(first=vector(1, 8), second=vector(2, 8), reads=reads)
        assert memory(both, is_view).timeline == (8, 16, 46, 30, 31, 32)


def test_an_empty_program_holds_its_inputs() -> None:
    use = memory(program(((vector(0, 9), param()),), ()), is_view)
    assert (use.peak_bytes, use.timeline) == (9, ())


@given(programs())
def test_a_block_walked_once_counts_as_its_calls_written_out(original: Program) -> None:
    folded, flat = memory(original, is_view), memory(inlined(original), is_view)
    assert folded.timeline == flat.timeline
    assert folded.peak_bytes == max(folded.timeline) == sum(folded.parts.values())
    assert folded.peak_bytes == flat.peak_bytes


def test_a_run_holds_both_epochs_results_and_letters() -> None:
    w, x, arrived = vector(0, 100), vector(1, 7), vector(2, 30)
    a, b, w2 = vector(3, 30), vector(4, 30), vector(5, 100)
    ops = (
        Op(name="fabric.receive", args=("pp", 0, 1), outputs=(arrived,)),
        op("aten.exp", a, arrived),  # over what arrived: it is in its letter still
        op("aten.cumsum", b, a),
        op("aten.mul.Tensor", w2, w, b),
    )
    step = program(((w, param()), (x, Port(name="x", role="arg"))), ops, ((w2, 0), (b, None)))
    use = run_memory(step)
    assert use.parts == {
        **dict.fromkeys(RUN_PARTS, 0),
        "parameters": 100,
        "inputs": 7,
        "next epoch": 100,
        "results": 30,
        "letters": 30,
        "temporaries": 30,
    }
    # The new weight is written where it stays.
    assert use.timeline == (267, 267, 297, 297)
    assert use.modules[0] == ("layers.*", 200)
    # In place, with what arrives in memory of its own: w2 is made while w is read.
    assert memory(step).timeline == (137, 167, 167, 237)


def test_a_run_overwrites_what_dies() -> None:
    w, a, b, c = (vector(i, 10) for i in range(4))
    ops = (op("aten.cumsum", a, w), op("aten.exp", b, a), op("aten.neg", c, b))
    step = program(((w, param()),), ops, ((c, None),))
    assert memory(step).timeline == (20, 30, 30)
    assert run_memory(step).timeline == (30, 30, 30)


def test_many_calls_of_a_block_walk_it_a_few_times() -> None:
    w, x = vector(0, 1), vector(1, 8)
    body = Block(
        name="layer", inputs=(w, x), ops=(op("f", vector(2, 8), w, x),), outputs=(vector(2, 8),)
    )
    walks: list[str] = []

    def counting(seen: Op) -> bool:
        walks.append(seen.name)
        return False

    values = [vector(i + 1, 8) for i in range(101)]
    calls = tuple(
        Op(name=CALL, block="layer", args=(w, a), outputs=(b,)) for a, b in pairwise(values)
    )
    inputs = ((w, param()), (values[0], Port(name="x", role="arg")))
    assert memory(program(inputs, calls, (), (body,)), counting).peak_bytes == 1 + 8 + 16
    assert len(walks) <= 4
