import pytest

from supernode.errors import InputError, UnknownName
from supernode.machine import load_machine, what_if

MACHINE = load_machine("hgx-h100")


@pytest.mark.parametrize("key", sorted(dict(MACHINE.numbers())))
def test_every_number_can_be_changed_alone(key: str):
    before, after = dict(MACHINE.numbers()), dict(what_if(MACHINE, f"{key}=2x").numbers())
    assert after[key].value == 2 * before[key].value
    assert {name for name in after if after[name] != before[name]} <= {key}
    assert list(after) == list(before)


def test_a_number_may_be_given_in_full_or_without_its_unit():
    faster = what_if(MACHINE, "chip.memory.bandwidth=4e12")
    assert faster.chip.memory.bandwidth_bytes_per_s.value == pytest.approx(4e12)
    assert faster.chip.memory.bandwidth_bytes_per_s.kind == "inferred"
    assert what_if(MACHINE, "chip.memory.bandwidth_bytes_per_s=4e12") == faster


@pytest.mark.parametrize("change", ["chip.memory", "chip.memory.bandwidth=fast", "chip.power_w=0x"])
def test_what_is_no_change_is_refused(change: str):
    with pytest.raises(InputError):
        what_if(MACHINE, change)


def test_an_unknown_number_is_refused():
    with pytest.raises(UnknownName, match=r"no number 'chip\.memory\.bandwith'"):
        what_if(MACHINE, "chip.memory.bandwith=2x")
