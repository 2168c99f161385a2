"""The cache gives back what was put in, stays within its limit, and never serves half a file."""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.storage.file_cache import FileCache, temporary_cache_folder

HEADER = 16


def content(name: str, size: int) -> bytes:
    return (name.encode() * (size // len(name) + 1))[:size]


def stored(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and len(path.name) == 40]


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in stored(folder))


def never() -> bytes:
    raise AssertionError("this should have come from the cache")


def test_what_was_fetched_once_is_not_fetched_again(tmp_path: Path) -> None:
    FileCache(str(tmp_path), 1000).get("a", lambda: b"bytes")
    assert FileCache(str(tmp_path), 1000).get("a", never) == b"bytes", "another process finds it, too"


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 400),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), max_size=40),
)
def test_the_limit_holds_after_every_file_and_contents_are_right(limit: int, asked: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        caches = [FileCache(folder, limit), FileCache(folder, limit)]
        for number, which in asked:
            data = content(f"<{number}>", 17 * number)
            assert caches[which].get(str(number), lambda data=data: data) == data
            assert held(Path(folder)) <= limit


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = FileCache(str(tmp_path), 4 * (100 + HEADER))
    for name in "abcd":
        cache.get(name, lambda name=name: content(name, 100))
        time.sleep(0.002)
    cache.get("a", never)
    cache.get("e", lambda: content("e", 100))
    cache.get("a", never)
    cache.get("e", never)
    assert cache.get("b", lambda: b"again") == b"again", "b was the one that went"


@pytest.mark.parametrize("keep", [0, 5, HEADER, HEADER + 50])
def test_a_file_cut_short_is_fetched_again(tmp_path: Path, keep: int) -> None:
    cache = FileCache(str(tmp_path), 10_000)
    cache.get("a", lambda: content("a", 100))
    (file,) = stored(tmp_path)
    os.truncate(file, keep)
    assert cache.get("a", lambda: content("a", 100)) == content("a", 100)
    assert cache.get("a", never) == content("a", 100)


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    cache = FileCache(str(tmp_path), 10_000)
    cache.get("a", lambda: content("a", 100))
    (file,) = stored(tmp_path)
    damaged = bytearray(file.read_bytes())
    damaged[60] ^= 1
    file.write_bytes(damaged)
    assert cache.get("a", lambda: b"fresh") == b"fresh"


def test_a_file_over_the_limit_is_passed_on_and_not_kept(tmp_path: Path) -> None:
    cache = FileCache(str(tmp_path), 100)
    assert cache.get("a", lambda: content("a", 100)) == content("a", 100)
    assert stored(tmp_path) == []


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = FileCache(str(tmp_path), 100)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert cache.get("a", lambda: b"then") == b"then"


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x" * 5000)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "thesis.tex").write_bytes(b"x" * 5000)
    cache = FileCache(str(tmp_path), 300)
    for number in range(20):
        cache.get(str(number), lambda: content("n", 100))
    assert (tmp_path / "photo.jpg").stat().st_size == 5000
    assert (tmp_path / "ab" / "thesis.tex").stat().st_size == 5000


def test_a_count_that_is_wrong_is_put_right(tmp_path: Path) -> None:
    """A process may die between counting a file and moving it into place."""
    cache = FileCache(str(tmp_path), 1000)
    for text in (b"9" * 32, b"nonsense", b""):
        (tmp_path / ".fcn-cache-lock").write_bytes(text)
        for number in range(12):
            cache.get(f"{text!r}{number}", lambda: content("n", 100))
            assert held(tmp_path) <= 1000
    assert len(stored(tmp_path)) >= 7, "a count that was too high does not keep the cache empty"


def test_leftovers_of_processes_that_died_go_in_time(tmp_path: Path) -> None:
    cache = FileCache(str(tmp_path), 300)
    old, new = (tmp_path / f".fcn-aside-{letter * 32}" for letter in "ab")
    for path in (old, new):
        path.write_bytes(b"half a fi")
    os.utime(old, (time.time() - 7200,) * 2)
    for number in range(5):
        cache.get(str(number), lambda: content("n", 100))
    assert not old.exists()
    assert new.exists(), "somebody may still be writing it"


WORKER = """
import random, sys
from pipeline.storage.file_cache import FileCache
folder, limit, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache, chance, fetched = FileCache(folder, limit), random.Random(seed), 0
for _ in range(600):
    number = chance.randrange(60)
    def fetch():
        global fetched
        fetched += 1
        return bytes([number]) * (50 + number * 7)
    data = cache.get(str(number), fetch)
    assert data == bytes([number]) * (50 + number * 7), number
print(fetched)
"""


def test_several_processes_fill_and_evict_at_once(tmp_path: Path) -> None:
    limit = 8000  # less than half of what they ask for
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(limit)]
    workers = [subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True) for seed in range(3)]
    fetched = [int(worker.communicate()[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], "every one read whole files only"
    assert all(60 < count < 600 for count in fetched), "files were evicted, and files were found"
    assert 0 < held(tmp_path) <= limit
    assert not list(tmp_path.glob(".fcn-aside-*"))
    assert int((tmp_path / ".fcn-cache-lock").read_bytes()) == held(tmp_path)


def test_several_threads_share_one_cache(tmp_path: Path) -> None:
    cache = FileCache(str(tmp_path), 3000)
    names = [str(index % 40) for index in range(400)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda name: cache.get(name, lambda: content(name, 200)), names))
    assert found == [content(name, 200) for name in names]
    assert held(tmp_path) <= 3000


def test_a_folder_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="choose another with --cache"):
        FileCache(str(tmp_path / "file" / "cache"), 100).prepare()


def test_a_folder_that_fails_on_the_way_costs_speed_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = FileCache(str(tmp_path / "file" / "cache"), 100)
    assert [cache.get("a", lambda: b"bytes") for _ in range(3)] == [b"bytes"] * 3
    assert caplog.text.count("cache_not_used") == 1


def test_the_temporary_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Path(temporary_cache_folder())
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(InputError, match="not this user's alone"):
        temporary_cache_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(InputError, match="not this user's alone"):
        temporary_cache_folder()


def test_a_cache_that_travels_finds_the_temporary_folder_of_where_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [tmp_path / "here", tmp_path / "there"]
    cache = FileCache(None, 1000)
    for home in homes:
        home.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(home))
        cache = pickle.loads(pickle.dumps(cache))
        cache.get("a", lambda: b"bytes")
        assert len(stored(home)) == 1
