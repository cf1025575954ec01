"""What every refusal says, word by word, and that its advice works.

A golden text shows for each program the error with the line of the program in place of its number.
"""

import linecache
import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from bad_programs import dependent, outside, planned, ran, toy, written
from supernode.api import Node, connect
from supernode.capture import capture
from supernode.errors import SupernodeError

Golden = Callable[[str, str], None]
FILES = (toy, dependent, written, outside, planned, ran)
_LINE = re.compile(r"(?:/\S*/)?([\w-]+\.py):(\d+)")
_FILES = {f"{each.__name__.split('.')[1]}.py": each.__file__ for each in FILES}


def shown(error: SupernodeError) -> str:
    """The text with the line itself for `/…/written.py:12`."""

    def line(match: re.Match[str]) -> str:
        name, number = match.groups()
        return f"`{linecache.getline(_FILES[name], int(number)).strip()}`"

    return f"{type(error).__name__}: {_LINE.sub(line, str(error))}"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with connect("cpu:2") as found:
        yield found


def refusal(act: Callable[[], object]) -> SupernodeError:
    with pytest.raises(SupernodeError) as caught:
        act()
    return caught.value


def text(errors: dict[str, SupernodeError]) -> str:
    parts = [f"# {name.replace('_', ' ')}\n{shown(error)}\n" for name, error in errors.items()]
    return "\n".join(parts)


def captures(case: toy.Case) -> object:
    with torch.random.fork_rng(devices=[]):
        return capture(*case)


def test_texts_of_capture(golden: Golden) -> None:
    errors = {name: refusal(partial(captures, make(False))) for name, make in toy.PROGRAMS.items()}
    golden("bad_programs_capture.txt", text(errors))


def test_texts_of_partition(golden: Golden) -> None:
    errors = {name: refusal(make(False)) for name, make in planned.PROGRAMS.items()}
    golden("bad_programs_partition.txt", text(errors))


def test_texts_of_run(node: Node, golden: Golden) -> None:
    errors = {name: refusal(make(node, False)) for name, make in ran.PROGRAMS.items()}
    golden("bad_programs_run.txt", text(errors))


@pytest.mark.parametrize("name", planned.PROGRAMS)
def test_the_advice_of_partition_works(name: str) -> None:
    planned.PROGRAMS[name](True)()


@pytest.mark.parametrize("name", ran.PROGRAMS)
def test_the_advice_of_run_works(node: Node, name: str) -> None:
    ran.PROGRAMS[name](node, True)()


@pytest.mark.parametrize("name", toy.PROGRAMS)
def test_the_advice_of_capture_works(name: str) -> None:
    captures(toy.PROGRAMS[name](True))


@pytest.mark.parametrize("name", toy.PROGRAMS)
def test_a_refusal_of_capture_is_whole(name: str) -> None:
    error = refusal(lambda: captures(toy.PROGRAMS[name](False)))
    assert error.fix
    assert _LINE.search(error.where)
