"""The native part is compiled once for each host, and says so when it can't be."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from supernode.errors import InputError, SupernodeError
from supernode.run.fabric import ArenaSet, SharedMemoryFabric
from supernode.run.fabric.library import native_library

load = native_library.__wrapped__  # without the cache of this process


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_first_uses_at_the_same_time_build_one_library(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        libraries = list(pool.map(lambda _: load(), range(3)))
    built = list((tmp_path / "supernode").iterdir())
    assert [path.suffix for path in built] == [".so"]
    assert [library.sn_slots() for library in libraries] == [256] * 3
    written = built[0].stat().st_mtime_ns
    load()
    assert built[0].stat().st_mtime_ns == written


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SupernodeError, match=r"no C compiler: none of cc, gcc, clang") as caught:
        load()
    assert caught.value.fix == "install gcc or clang, or set CC"


def test_a_wrong_cc_is_named(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -m32")
    with pytest.raises(SupernodeError, match="CC names no program: no-such-compiler -m32"):
        load()


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        SupernodeError, match=r"file/supernode can't be written: Not a dir"
    ) as caught:
        load()
    assert caught.value.fix == "set XDG_CACHE_HOME to a folder that can"


def test_a_compiler_that_fails_is_quoted_and_leaves_no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "cc -DBLOCK_BYTES=+")
    with pytest.raises(SupernodeError, match="the C compiler failed") as caught:
        load()
    assert "error:" in caught.value.wrong
    assert "-DBLOCK_BYTES=+" in caught.value.asked
    assert list((tmp_path / "supernode").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chips": 0}, "0 chips: a host may have 1 to 1024"),
        ({"chips": 2, "window_bytes": 100}, "multiple of 64"),
        ({"chips": 4, "window_bytes": 192}, "64 for each of 4 chips"),
        ({"chips": 2, "arena_bytes": 1000}, "the two windows alone take 2097152"),
    ],
)
def test_sizes_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ArenaSet.create(**arguments)


def test_an_arena_is_as_large_as_the_host_and_costs_nothing_until_touched():
    with ArenaSet.create(2) as arenas:
        assert arenas.arena_bytes > 2**28
        fabric = SharedMemoryFabric.attach(arenas.fds, 1)
        assert (fabric.rank, fabric.world) == (1, 2)
        with pytest.raises(InputError, match="rank 2: these arenas are for ranks 0 to 1"):
            SharedMemoryFabric.attach(arenas.fds, 2)
