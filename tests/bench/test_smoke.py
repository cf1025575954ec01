"""Each theme runs at its smallest size; both sides compute the same, or it raises."""

from importlib.util import find_spec

import pytest
from bench.__main__ import THEMES

ROWS = {"training": 4, "one-chip": 2, "offload": 1, "fabric": 6, "planning": 12, "gpu": 5}
ROWS |= {"triton-cpu": 18}

LONG = ("training", "planning", "triton-cpu", "offload")
MARKS = {"gpu": pytest.mark.gpu} | dict.fromkeys(LONG, pytest.mark.zoo)


def _theme(name: str) -> object:
    return pytest.param(name, marks=MARKS.get(name, pytest.mark.slow))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # Inductor's own import
@pytest.mark.parametrize("theme", [_theme(each) for each in THEMES])
def test_a_theme_measures(theme: str):
    if theme == "triton-cpu":
        pytest.importorskip("triton", reason="needs the extra `kernels`")
    section = THEMES[theme](quick=True)
    assert section.theme == theme
    beside_numba = 4 if theme == "triton-cpu" and find_spec("numba") else 0
    assert len(section.rows) == ROWS[theme] + beside_numba
    assert all(value > 0 for row in section.rows for value in (*row.ours, *row.theirs))
    assert any(row.headline for row in section.rows)
