import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supernode.errors import InputError
from supernode.models.text import byte_entropy, random_windows, standard_library_text


def test_the_standard_library_is_enough_text_to_learn_from():
    text = standard_library_text()
    assert text.dtype == torch.uint8
    assert len(text) > 5_000_000
    assert b"import" in bytes(text[:100_000].tolist())
    assert 2.5 < byte_entropy(text) < 4.0


def test_files_come_in_the_order_of_their_paths_without_tests_and_packages(tmp_path: Path):
    for name in ("b.py", "a/z.py", "a/test/t.py", "site-packages/p.py", "a/data.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name};")
    assert bytes(standard_library_text(tmp_path).tolist()) == b"a/z.py;b.py;"


def test_a_python_without_sources_is_an_error_that_says_where(tmp_path: Path):
    with pytest.raises(InputError, match="no Python sources to train on") as caught:
        standard_library_text(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_entropy_of_known_texts():
    assert byte_entropy(torch.arange(256, dtype=torch.uint8)) == pytest.approx(math.log(256))
    assert byte_entropy(torch.tensor([7] * 9, dtype=torch.uint8)) == 0
    assert byte_entropy(torch.tensor([1, 1, 1, 2], dtype=torch.uint8)) == pytest.approx(0.5623351)


@given(size=st.integers(2, 60), batch=st.integers(1, 4), seed=st.integers(0, 9), data=st.data())
def test_targets_are_the_tokens_that_follow(size: int, batch: int, seed: int, data: st.DataObject):
    length = data.draw(st.integers(1, size - 1))
    text = torch.arange(size, dtype=torch.uint8)  # the value of a byte is its place
    tokens, targets = next(random_windows(text, batch=batch, length=length, seed=seed))
    assert tokens.shape == targets.shape == (batch, length)
    assert torch.equal(targets, tokens + 1)
    assert torch.equal(tokens, tokens[:, :1] + torch.arange(length))


def test_windows_follow_the_seed():
    text = torch.arange(200, dtype=torch.uint8)
    first, again, other = (
        next(random_windows(text, batch=8, length=9, seed=seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(InputError, match="a text of 9 bytes has no window of 10 bytes"):
        random_windows(torch.zeros(9, dtype=torch.uint8), batch=1, length=9, seed=0)
