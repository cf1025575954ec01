"""The names of torch that are not public exist, and a missing one is named."""

import pytest

from supernode.capture import compat


def test_all_names_exist() -> None:
    assert compat.missing_names() == []


def test_a_missing_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ("torch._C._no_such_name", "torch.no_such_module.thing")
    monkeypatch.setattr(compat, "NAMES", (*compat.NAMES, *gone))
    assert compat.missing_names() == list(gone)
