import pytest

from supernode.machine import catalogue, load_machine, parse_machine, to_toml

NAMES = (*catalogue(), "cloudmatrix384@die", "64xhgx-h100", "gb200-nvl72")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_back_equal(name: str):
    machine = load_machine(name)
    again = parse_machine(to_toml(machine), name)
    assert again == machine
    assert dict(again.numbers()) == dict(machine.numbers())


def test_words_of_a_file_may_hold_any_sign(example_toml: str):
    text = example_toml.replace("Two boards", 'A \\"board\\" \\\\ of \\u007f\\nü; two')
    machine = parse_machine(text, "odd.toml")
    assert '"board" \\ of \x7f\nü' in machine.notes
    assert parse_machine(to_toml(machine), "again.toml") == machine


def test_a_chip_that_does_not_overlap_says_so(example_toml: str):
    assert parse_machine(example_toml, "a.toml").chip.overlaps
    text = example_toml.replace("[chip]\n", "[chip]\noverlaps = false\n")
    machine = parse_machine(text, "b.toml")
    assert not machine.chip.overlaps
    assert "overlaps = false" in to_toml(machine)
