from collections.abc import Callable

import pytest

from report.laid import gpt_plan, mlp_plan
from supernode.report import as_text, explanation, layouts_report

Golden = Callable[[str, str], None]


def text(line: str, width: int = 80) -> str:
    return as_text(layouts_report(explanation(gpt_plan(line))), width)


def test_layouts(golden: Golden) -> None:
    shown = layouts_report(explanation(mlp_plan("fsdp=2,tp=2")))
    golden("report_layouts.txt", as_text(shown, 80))


def test_layouts_of_stages(golden: Golden) -> None:
    shown = layouts_report(explanation(mlp_plan("pp=2")))
    golden("report_layouts_staged.txt", as_text(shown, 80))


def test_activations_of_stages_and_microbatches() -> None:
    shown = text("pp=1/tp=2,micro=4")
    assert "n: how many a step makes of a microbatch" in " ".join(shown.split())
    lines = shown.split("made in the forward phase by")[1].splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("blocks.*.mlp.up"))
    first, second = (" ".join(line.split()) for line in lines[at : at + 2])
    assert first == "blocks.*.mlp.up 4 f32[2, 32, 256] pp@0 65.5 kB"
    assert second == "4 f32[2, 32, 256/tp] pp@1 32.8 kB"
    assert "8/micro: one part of it after another" in text("micro=4")


def test_what_lives_on_the_host_is_not_in_the_chip_s_memory() -> None:
    shown = text("fsdp=2,offload=optimizer")
    (state,) = (part for part in shown.split("\n\n") if part.startswith("optimizer state"))
    assert "f32[256/fsdp, 64] in host" in state
    assert state.splitlines()[-1].split() == ["all", "in", "its", "memory", "2.66", "kB"]
    assert "all, where most is" in text("pp=2")


@pytest.mark.parametrize("line", ["", "zero1=4", "zero1=2,fsdp=2,tp=2"])
def test_a_report_fits_a_terminal(line: str) -> None:
    assert max(map(len, text(line).splitlines())) <= 80


def test_names_in_brackets_are_no_markup() -> None:
    assert "optimizer.*[blocks.*.mlp.up.weight]" in text("zero1=4")


def test_state_that_lies_as_its_parameter_is_not_listed() -> None:
    shown = text("fsdp=4")
    assert "optimizer.*" not in shown
    assert "as its parameters" in shown


def test_each_phase_has_a_column() -> None:
    (line,) = (
        line
        for line in text("fsdp=4").split("blocks.*.mlp.up\n")[1].splitlines()[:2]
        if "all_gather" in line
    )
    assert line.split() == ["fsdp", "all_gather", "4", "98.3", "kB", "98.3", "kB"]


def test_what_sends_nothing_has_no_traffic() -> None:
    shown = text("")
    assert "one chip" in shown
    assert "sends" not in shown
