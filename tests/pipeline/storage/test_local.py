"""A local folder as a store."""

import os
import pickle
import posix
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import (
    AccessDenied,
    InputError,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    ObjectTooLarge,
    StorageError,
)
from pipeline.sources.opening import open_source
from pipeline.storage import durable
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

# Anything that one part of a local key may be.
PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..") and len(part.encode()) <= 200
)
KEYS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "root"))


def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, st.binary(max_size=20), max_size=8))
def test_any_keys_come_back_in_order_with_their_bytes(objects: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        written: dict[str, bytes] = {}
        for key, data in objects.items():
            # A file and a folder cannot share a name, unlike in object storage.
            if any(key.startswith(other + "/") or other.startswith(key + "/") for other in written):
                continue
            store.put(key, data)
            written[key] = data
        listed = list(store.list())
        assert [info.key for info in listed] == sorted(written, key=str.encode)
        for info in listed:
            assert store.get(info.key, size=info.size, etag=info.etag) == written[info.key]
            assert store.head(info.key) == info


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text("ab./-", min_size=1, max_size=6)), st.text("ab./-", max_size=4))
def test_a_prefix_is_a_plain_string(names: set[str], prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        for name in sorted(names):
            try:
                store.put(name, b"")
            except StorageError:
                continue
        assert keys(store, prefix) == [key for key in keys(store) if key.startswith(prefix)]


def test_a_folder_sorts_as_its_name_and_a_slash(store: Store) -> None:
    for key in ["a/c", "a.b", "a0", "a-"]:
        store.put(key, b"")
    assert keys(store) == ["a-", "a.b", "a/c", "a0"]


def test_a_listing_tells_size_time_and_an_etag_that_changes_with_the_bytes(store: Store, tmp_path: Path) -> None:
    store.put("k", b"one")
    (before,) = store.list()
    assert before.size == 3
    assert before.last_modified.tzinfo is UTC
    os.utime(tmp_path / "root/k", ns=(1, 1))
    assert store.head("k").etag != before.etag
    store.put("k", b"other")
    assert store.head("k").etag != before.etag


def test_the_etag_survives_a_copy_that_keeps_times(store: Store, tmp_path: Path) -> None:
    store.put("k", b"one")
    subprocess.run(["cp", "-p", tmp_path / "root/k", tmp_path / "root/copy"], check=True)
    assert store.head("copy").etag == store.head("k").etag


def test_an_object_that_changed_since_it_was_listed_is_not_served(store: Store) -> None:
    store.put("k", b"one")
    (listed,) = store.list()
    store.put("k", b"longer")
    with pytest.raises(ObjectChanged, match="k has changed"):
        store.get("k", etag=listed.etag)
    with pytest.raises(ObjectChanged):
        store.get("k", size=3)
    assert store.get("k") == b"longer"


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a/..", ".", "a//b", "a/", "a\0b", "\ud800"])
def test_no_key_leads_out_of_the_root(store: Store, tmp_path: Path, key: str) -> None:
    store.put("a/inside", b"")
    calls: list[Callable[[], object]] = [
        lambda: store.get(key),
        lambda: store.head(key),
        lambda: store.put(key, b"x"),
        lambda: store.create(key, b"x"),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(StorageError) as caught:
            call()
        assert repr(key) in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "inside", "root"]


@pytest.mark.parametrize("key", ["missing", "a/missing", "file/below"])
def test_what_is_not_there_is_missing(store: Store, key: str) -> None:
    store.put("file", b"")
    with pytest.raises(ObjectMissing):
        store.get(key)
    with pytest.raises(ObjectMissing):
        store.head(key)
    store.delete(key)


def test_an_object_over_what_it_may_have_is_not_read(store: Store) -> None:
    store.put("k", b"123456")
    with pytest.raises(ObjectTooLarge, match=r"k has 6 bytes, over the 5 that it may have"):
        store.get("k", most_bytes=5)
    assert store.get("k", most_bytes=6) == b"123456"


def test_a_folder_is_no_object(store: Store) -> None:
    store.put("a/b", b"")
    for call in (store.get, store.head):
        with pytest.raises(ObjectMissing):
            call("a")
    with pytest.raises(StorageError, match="folder"):
        store.put("a", b"")
    with pytest.raises(StorageError, match="folder") as caught:
        store.create("a", b"")
    assert not isinstance(caught.value, ObjectExists)
    with pytest.raises(StorageError, match="folder"):
        store.put("a/b/c", b"")


def test_delete_removes(store: Store) -> None:
    store.put("a/b", b"")
    store.delete("a/b")
    assert keys(store) == []


def test_create_never_overwrites(store: Store) -> None:
    store.create("a/k", b"first")
    with pytest.raises(ObjectExists, match="a/k exists already"):
        store.create("a/k", b"second")
    assert store.get("a/k") == b"first"
    assert keys(store) == ["a/k"]


def test_of_many_creators_one_wins_and_its_bytes_stay(store: Store) -> None:
    won: list[bytes] = []
    start = threading.Barrier(16)

    def work(data: bytes) -> None:
        start.wait()
        try:
            store.create("new/k", data)
        except ObjectExists:
            return
        won.append(data)

    threads = [threading.Thread(target=work, args=(bytes([n]) * 10_000,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("new/k") == won[0]


def test_readers_see_the_old_bytes_or_the_new_never_a_mixture(store: Store) -> None:
    store.put("k", b"0" * 100_000)
    done = threading.Event()

    def write() -> None:
        for n in range(100):
            store.put("k", str(n % 10).encode() * (100_000 + n))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not done.is_set():
        assert len(set(store.get("k"))) == 1
        seen += 1
    writer.join()
    assert seen > 0


def test_a_writer_that_is_killed_leaves_nothing_that_is_listed(tmp_path: Path) -> None:
    script = """
        import os, stat, sys
        from pipeline.storage.opening import open_store
        os.fsync = lambda opened: stat.S_ISREG(os.fstat(opened).st_mode) and os.kill(os.getpid(), 9)
        open_store(sys.argv[1]).put("k", b"data")
    """
    (tmp_path / "kept").write_bytes(b"")
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path], check=False)
    assert ended.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    assert keys(open_store(str(tmp_path))) == ["kept"]


def test_what_is_written_may_ask_a_real_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other test does: tests/guard."""
    asked: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda opened: (asked.append(opened), posix.fsync(opened)))
    store = open_store(str(tmp_path / "new" / "root"))
    store.put("a/k", b"data")
    assert store.get("a/k") == b"data"
    assert len(asked) > 3, "the file, and the folders that have a new name in them"


def test_a_failed_write_leaves_nothing_behind(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.put("k", b"new")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["k"]
    assert store.get("k") == b"old"


def test_names_kept_for_files_being_written_are_refused(store: Store) -> None:
    with pytest.raises(StorageError, match="kept for files being written"):
        store.put("a/.fcn-" + "0" * 32 + ".tmp", b"")


def test_names_that_are_not_utf8_are_listed_and_readable(store: Store, tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "root")
    os.makedirs(root + b"/d\xe9")
    names = [b"caf\xe9.jpg", b"d\xe9/x.jpg", b"\xff\\xe9", "é.jpg".encode(), b"literal\\xe9.jpg"]
    for name in names:
        Path(os.fsdecode(root + b"/" + name)).write_bytes(name)
    assert keys(store) == sorted(["caf\\xe9.jpg", "d\\xe9/x.jpg", "\\xff\\x5cxe9", "é.jpg", "literal\\xe9.jpg"])
    assert {store.get(info.key, size=info.size, etag=info.etag) for info in store.list()} == set(names)
    assert {store.head(key).key for key in keys(store)} == set(keys(store))
    store.delete("caf\\xe9.jpg")
    assert "caf\\xe9.jpg" not in keys(store)


def test_an_escape_smuggles_in_no_path(store: Store) -> None:
    store.put("a", b"")
    for key in ["\\x2e\\x2e/x", "\\x2fetc", "\\xc3\\xa9"]:
        with pytest.raises(ObjectMissing):
            store.get(key)


def test_two_files_with_one_key_are_an_error_not_a_guess(store: Store, tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "root")
    os.makedirs(root)
    for name in [b"\xe9", b"\\xe9"]:
        Path(os.fsdecode(root + b"/" + name)).write_bytes(name)
    with pytest.raises(StorageError, match="rename one"):
        keys(store)
    assert store.get("\\xe9") == b"\\xe9"


def test_links_are_followed_but_not_in_circles(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "photo").write_bytes(b"p")
    store.put("a/b/k", b"")
    root = tmp_path / "root"
    (root / "linked").symlink_to(elsewhere)
    (root / "a/b/up").symlink_to(root / "a")
    (root / "self").symlink_to(root)
    (root / "eternal").symlink_to(root / "eternal")
    (root / "dangling").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe")
    assert keys(store) == ["a/b/k", "linked/photo"]
    assert store.get("linked/photo") == b"p"
    for name in ["a/b/up", "self", "eternal", "dangling", "pipe"]:
        assert f"{root}/{name}" in caplog.text


@pytest.mark.timeout(20)
def test_a_named_pipe_does_not_make_a_reader_wait(store: Store, tmp_path: Path) -> None:
    store.put("k", b"")
    os.mkfifo(tmp_path / "root/pipe")
    with pytest.raises(ObjectMissing):
        store.get("pipe")


def test_listing_streams_a_folder_at_a_time(store: Store, tmp_path: Path) -> None:
    for folder in "abc":
        store.put(f"{folder}/k", b"")
    listing = store.list()
    assert isinstance(listing, Iterator)
    assert next(listing).key == "a/k"
    (tmp_path / "root/c/k").rename(tmp_path / "root/c/later")
    assert [info.key for info in listing] == ["b/k", "c/later"]


def test_an_output_that_does_not_exist_yet_is_empty_and_writable(store: Store, tmp_path: Path) -> None:
    assert keys(store) == []
    store.check_writable()
    assert list(tmp_path.iterdir()) == []


def test_preflight_says_what_is_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"root does not exist; create the folder or correct the path\.$"):
        store.check_readable()
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(StorageError, match="root is not a folder; correct the path"):
        store.check_readable()
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        store.check_writable()
    (tmp_path / "root").unlink()
    store.put("k", b"")
    store.check_readable()
    store.check_writable()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["k"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_preflight_says_what_is_forbidden(store: Store, tmp_path: Path) -> None:
    store.put("k", b"")
    (tmp_path / "root").chmod(0)
    try:
        with pytest.raises(AccessDenied, match="permissions"):
            store.check_readable()
        with pytest.raises(AccessDenied, match="permissions"):
            store.check_writable()
        with pytest.raises(AccessDenied):
            keys(store)
    finally:
        (tmp_path / "root").chmod(0o755)


def test_a_read_only_place_is_named_by_preflight() -> None:
    with pytest.raises(StorageError, match="/proc/nothing"):
        open_store("/proc/nothing/here").check_writable()


@pytest.mark.parametrize("name", ["plain", "with space", "100%", "q?a=b", "h#x", "é", "a:b"])
def test_paths_and_file_uris_mean_the_same_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    by_path, by_uri = open_store(str(folder)), open_store(folder.as_uri())
    by_path.put("k", b"1")
    assert by_uri.get("k") == b"1"
    assert open_store(by_uri.uri).get("k") == b"1"
    assert open_store(by_path.uri).uri == by_path.uri


def test_a_store_inside_a_store(store: Store) -> None:
    store.at("masks/deep").put("k", b"1")
    assert store.get("masks/deep/k") == b"1"
    assert keys(store.at("masks")) == ["deep/k"]
    with pytest.raises(StorageError):
        store.at("../elsewhere")


def test_a_pickled_store_opens_the_same_folder_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("relative")
    store.put("k", b"1")
    sent = pickle.dumps(store)
    monkeypatch.chdir("/")
    assert pickle.loads(sent).get("k") == b"1"


@pytest.mark.parametrize(
    "uri", ["", "http://x/y", "ftp://x", "file://host/x", "file:///x?y=z", "s3://", "gs://", "a\0b"]
)
def test_a_uri_that_names_no_storage_is_an_input_error(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        open_store(uri)
    assert str(caught.value).endswith(".")


def test_a_deletion_never_follows_a_link_to_a_folder(tmp_path: Path) -> None:
    one, two = open_store(str(tmp_path / "one")), open_store(str(tmp_path / "two"))
    one.put("masks/cam/a.png", b"another output's")
    two.put("results/x", b"x")
    (tmp_path / "two" / "masks").symlink_to(tmp_path / "one" / "masks")
    (tmp_path / "two" / "alias.png").symlink_to(tmp_path / "one" / "masks" / "cam" / "a.png")
    with pytest.raises(AccessDenied, match="lies behind a link to another folder"):
        two.delete("masks/cam/a.png")
    two.delete("results/never/there")
    two.delete("alias.png")
    assert not (tmp_path / "two" / "alias.png").is_symlink(), "a link to a file goes, and not the file"
    assert one.get("masks/cam/a.png") == b"another output's"
    (tmp_path / "link").symlink_to(tmp_path / "one")
    open_store(str(tmp_path / "link")).delete("masks/cam/a.png")  # the root is where the user says it is
    assert not list(one.list())


def test_a_folder_that_another_has_just_made_is_brought_to_the_disk_before_a_file_in_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writer stops between making a folder and syncing its name; another's write into it must not rely on that."""
    store = open_store(str(tmp_path))
    synced: list[str] = []
    real = durable.sync_directory

    def sync(directory: bytes) -> None:
        if not synced:
            synced.append("the first one stops here")
            store.create("new/folder/second", b"x")
            assert {str(tmp_path), f"{tmp_path}/new"} <= set(synced), "before the write returns"
        synced.append(directory.decode())
        real(directory)

    store.create("warm", b"x")
    monkeypatch.setattr(durable, "sync_directory", sync)
    store.create("new/first", b"x")
    assert {info.key for info in store.list()} == {"warm", "new/first", "new/folder/second"}


def _too_deep(root: Path) -> None:
    """Folders in folders until no path leads to the innermost."""
    before = os.getcwd()
    root.mkdir()
    os.chdir(root)
    try:
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
        Path("deepest.jpg").write_bytes(b"x")
    finally:
        os.chdir(before)


def test_a_path_that_is_too_long_costs_one_short_line_and_not_the_listing_of_a_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _too_deep(tmp_path / "photos")
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    (tmp_path / "photos/z.jpg").write_bytes(b"x")
    source = open_source(str(tmp_path / "photos"))
    assert [info.key for info in source.list()] == ["a.jpg", "z.jpg"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "reason=path_too_long" in line
    assert len(line) < 500
    with pytest.raises(StorageError):
        list(open_store(str(tmp_path / "photos")).list())  # an output's listing is whole or none


def test_of_two_files_with_one_key_a_source_has_the_one_that_is_spelled_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for name in (b"\xe9.jpg", b"\\xe9.jpg"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name * len(name))
    source = open_source(str(root))
    (found,) = source.list()
    assert source.get(found.key, size=found.size, etag=found.etag) == b"\\xe9.jpg" * 8
    assert "another_file_has_this_key" in caplog.text


@pytest.mark.parametrize("mode", [0o000, 0o600], ids=["lost+found", "names without files"])
def test_a_folder_that_may_not_be_read_costs_one_line_and_not_the_listing_of_a_source(
    tmp_path: Path, mode: int
) -> None:
    photos = tmp_path / "photos"
    (photos / "lost+found").mkdir(parents=True)
    for name in ("lost+found/x.jpg", "a.jpg", "z.jpg"):
        (photos / name).write_bytes(b"x")
    (photos / "lost+found").chmod(mode)
    program = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pipeline.sources.opening import open_source\n"
        "from pipeline.storage.opening import open_store\n"
        "import pipeline.storage.local\n"
        "from pipeline.errors import AccessDenied\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        "print([info.key for info in open_source(sys.argv[1]).list()])\n"
        "try: print(list(open_store(sys.argv[1]).list()))\n"
        "except AccessDenied: print('refused')\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(photos), *sys.path], capture_output=True, text=True, timeout=60
        )
    finally:
        (photos / "lost+found").chmod(0o755)
    assert done.stdout.splitlines() == ["['a.jpg', 'z.jpg']", "refused"], done.stderr
    assert done.stderr.count("reason=permission_denied") == 1
