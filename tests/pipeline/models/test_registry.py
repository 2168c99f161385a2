"""Models in storage, by name: what is published is whole and stays as it is, and of promotions each has its number."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcn_core.metrics import Scores
from fcn_core.trained_on import TrainedOn
from pipeline.errors import AccessDenied, InputError, ObjectExists, StorageUnavailable
from pipeline.models.load import load_bundle
from pipeline.models.references import Reference, check_name
from pipeline.models.registry import ChampionChanged, Registry, open_registry
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import StorageOptions, Store
from tests.faulty_s3 import FaultyS3
from tests.samples import model

BUNDLES = tuple(model(seed=seed) for seed in range(3))
A, B, C = (bundle.model_id for bundle in BUNDLES)


@pytest.fixture
def atomic_s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto's server looks for an object and writes it in two steps; real services do it in one."""
    if "FCN_TEST_S3_ENDPOINT" in os.environ:
        return
    from moto.s3.responses import S3Response

    write, lock = S3Response.put_object, threading.Lock()

    def alone(response: S3Response) -> Any:
        with lock:
            return write(response)

    monkeypatch.setattr(S3Response, "put_object", alone)


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a registry can be, with nothing in it."""
    if request.param == "folder":
        return str(tmp_path / "registry")
    request.getfixturevalue("atomic_s3")
    return f"s3://{request.getfixturevalue('bucket')}/registry"


@pytest.fixture
def registry(uri: str) -> Registry:
    return open_registry(uri)


def keys(uri: str) -> list[str]:
    return [info.key for info in open_store(uri).list()]


# Names and references


def accepted(name: str) -> bool:
    """Whether it may name a model; the refusal must not drive the terminal."""
    try:
        check_name(name)
    except InputError as error:
        return not str(error).isprintable()
    return True


GOOD_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)


@given(GOOD_NAMES, VERSIONS)
def test_a_reference_reads_as_it_is_written(name: str, version: str) -> None:
    for reference in (Reference(name, version), Reference(name, None)):
        assert Reference.parse(str(reference)) == reference
    assert Reference.parse(f"registry:{name}") == Reference(name, None)


@given(st.text(max_size=80))
def test_a_name_is_taken_only_if_it_is_one_plain_folder(name: str) -> None:
    if not accepted(name):
        return
    assert name not in ("", ".", "..")
    assert name.isascii()
    assert not set(name) & set("/\\@:?#%*\0\n ")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../road", "a/b", "/road", "road\n", "ro ad", "-road", ".road", "röad", "a\0b", "a@b", "x" * 65],
)
def test_hostile_names_are_refused_wherever_one_is_given(tmp_path: Path, name: str) -> None:
    registry = open_registry(str(tmp_path / "registry"))
    calls: list[Callable[[], object]] = [
        lambda: registry.publish(name, BUNDLES[0]),
        lambda: registry.versions(name),
        lambda: registry.champion(name),
        lambda: registry.promotions(name),
        lambda: registry.promote(name, A, "because"),
        lambda: registry.find(name, A),
        lambda: registry.resolve(Reference(name, A)),
        lambda: registry.resolve(Reference(name, None)),
    ]
    (tmp_path / "registry").mkdir()
    for call in calls:
        with pytest.raises(InputError, match="cannot name a model"):
            call()
    assert list(tmp_path.rglob("*")) == [tmp_path / "registry"]


@pytest.mark.parametrize(
    "text",
    ["registry:", "registry:@champion", "registry:road@", "registry:road@latest", "registry:road@champion@2",
     f"registry:road@{A.upper()}G", f"registry:road@{A}/..", f"registry://road@{A}", f"registry:road@{A}\n",
     "registry: road", "registry:road@Champion", "Registry:road", "road"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        open_registry(str(tmp_path)).resolve(text)


def test_a_registry_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FCN_REGISTRY", raising=False)
    with pytest.raises(InputError, match="--registry, or set FCN_REGISTRY"):
        open_registry()
    monkeypatch.setenv("FCN_REGISTRY", str(tmp_path))
    assert open_registry().uri == str(tmp_path)
    assert open_registry(str(tmp_path / "other")).uri == str(tmp_path / "other")


# Publishing


def test_a_published_model_is_the_model(registry: Registry, uri: str) -> None:
    bundle = replace(BUNDLES[0], scores={"mean_iou": 0.6}, provenance={"run": "r1"})
    version = registry.publish("road", bundle, {"ticket": "ML-7"})
    assert keys(uri) == [f"models/road/{version}/model.json", f"models/road/{version}/model.safetensors"]
    loaded = load_bundle(f"registry:road@{version}", uri)
    assert loaded.model_id == bundle.model_id
    assert loaded.scores == bundle.scores
    assert loaded.provenance["run"] == "r1"
    (listed,) = registry.versions("road")
    assert (listed.version, listed.model_id, listed.notes) == (version, A, {"ticket": "ML-7"})
    assert listed.published is not None
    assert registry.names() == ["road"]
    assert registry.champion("road") is None


def test_publishing_the_same_model_twice_is_one_version_with_the_first_notes(registry: Registry, uri: str) -> None:
    first = registry.publish("road", BUNDLES[0], {"note": "first"})
    before = {info.key: (info.etag, info.last_modified) for info in open_store(uri).list()}
    again = registry.publish("road", replace(BUNDLES[0], provenance={"run": "other"}), {"note": "second"})
    assert again == first
    assert {info.key: (info.etag, info.last_modified) for info in open_store(uri).list()} == before
    assert registry.versions("road")[0].notes == {"note": "first"}


def test_publishers_at_the_same_moment_make_one_version_of_one_model(registry: Registry, uri: str) -> None:
    start = threading.Barrier(6)

    def publish(index: int) -> str:
        start.wait()
        return registry.publish("road", BUNDLES[index % 2], {"by": index})

    with ThreadPoolExecutor(6) as threads:
        versions = list(threads.map(publish, range(6)))
    assert versions == [A, B] * 3
    assert {version.version for version in registry.versions("road")} == {A, B}
    assert len(keys(uri)) == 4
    for version in (A, B):
        assert load_bundle(f"registry:road@{version}", uri).model_id == version


class Cut:
    """A store whose process ends at one of its calls: before it, or right after it had its effect."""

    def __init__(self, store: Store, calls: Iterator[int], at: int, *, after: bool) -> None:
        self._store, self._calls, self._at, self._after = store, calls, at, after

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if name in ("uri", "location"):
            return value
        if name == "at":
            return lambda path: Cut(value(path), self._calls, self._at, after=self._after)

        def call(*arguments: Any, **options: Any) -> Any:
            here = next(self._calls) == self._at
            if here and not self._after:
                raise KeyboardInterrupt
            try:
                return value(*arguments, **options)
            finally:
                if here:
                    raise KeyboardInterrupt

        return call


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_publication_cut_off_anywhere_leaves_nothing_or_a_whole_model(uri: str, after: bool) -> None:
    outcomes = []
    open_registry(uri).publish("sea", BUNDLES[1])
    for at in range(1, 20):
        name = f"road{at}"
        registry = open_registry(uri)
        try:
            Registry(Cut(open_store(uri), itertools.count(1), at, after=after)).publish(name, BUNDLES[0])
            finished = True
        except KeyboardInterrupt:
            finished = False
        seen = registry.find(name, A) is not None
        assert (name in registry.names()) == seen
        assert [version.version for version in registry.versions(name)] == ([A] if seen else [])
        if seen:
            assert load_bundle(f"registry:{name}@{A}", uri).model_id == A
        else:
            with pytest.raises(InputError, match=r"there is no model|has no version"):
                load_bundle(f"registry:{name}@{A}", uri)
            with pytest.raises(InputError, match=r"there is no model|has no version"):
                registry.promote(name, A, "too early")
        outcomes.append(seen)
        assert registry.publish(name, BUNDLES[0]) == A, "the same call again completes it"
        assert load_bundle(f"registry:{name}@{A}", uri).model_id == A
        if finished:
            break
    assert finished
    assert outcomes == sorted(outcomes), "there is one moment from which on the version is there"
    assert outcomes.count(False) >= 3


def test_a_version_without_its_commit_does_not_exist(registry: Registry, uri: str) -> None:
    registry.publish("road", BUNDLES[0])
    files = BUNDLES[1].to_files()
    open_store(uri).put(f"models/road/{B}/model.safetensors", files["model.safetensors"])
    assert [version.version for version in registry.versions("road")] == [A]
    with pytest.raises(InputError, match=f"road has no version {B}"):
        registry.resolve(f"registry:road@{B}")
    with pytest.raises(InputError, match=f"road has no version {B}"):
        registry.promote("road", B, "wishful")
    assert registry.champion("road") is None


def test_weights_that_are_not_the_models_are_never_committed(registry: Registry, uri: str) -> None:
    key = f"models/road/{A}/model.safetensors"
    open_store(uri).put(key, b"half of it")
    with pytest.raises(InputError, match="holds other bytes than the model"):
        registry.publish("road", BUNDLES[0])
    assert registry.versions("road") == []
    open_store(uri).delete(key)
    registry.publish("road", BUNDLES[0])
    open_store(uri).delete(key)
    with pytest.raises(InputError, match=r"has lost its model\.safetensors"):
        registry.promote("road", A, "because")
    registry.publish("road", BUNDLES[0])
    assert load_bundle(f"registry:road@{A}", uri).model_id == A, "publishing again brings lost weights back"


def test_files_replaced_by_hand_are_noticed(registry: Registry, uri: str) -> None:
    registry.publish("road", BUNDLES[0])
    store = open_store(uri)
    for name, data in BUNDLES[1].to_files().items():
        store.put(f"models/road/{A}/{name}", data)
    with pytest.raises(InputError, match=f"is of model {B}"):
        registry.resolve(f"registry:road@{A}")
    assert registry.versions("road") == []
    store.put(f"models/road/{A}/model.json", b"{")
    with pytest.raises(InputError, match=r"model\.json is not JSON"):
        load_bundle(f"registry:road@{A}", uri)


@pytest.mark.parametrize("file", ["model.safetensors", "trained_on.bin"])
def test_a_version_with_a_flipped_bit_is_neither_promoted_nor_taken_for_published(
    registry: Registry, uri: str, file: str
) -> None:
    noted = replace(model(seed=1), trained_on=TrainedOn.of([b"12345678"]))
    version = registry.publish("road", noted)
    store = open_store(f"{uri}/models/road/{version}")
    content = bytearray(store.get(file))
    content[-1] ^= 1
    store.put(file, bytes(content))
    with pytest.raises(InputError, match=rf"{file} .*publish the model again"):
        registry.promote("road", version, "good")
    assert registry.champion("road") is None
    with pytest.raises(InputError, match=rf"{file} .*publish the model again"):
        registry.publish("road", noted)


def test_a_model_without_finite_scores_is_not_published(registry: Registry, uri: str) -> None:
    good = model(seed=1)
    for value, said in ((float("nan"), "NaN or infinite"), (1e38, "not all finite numbers")):
        state = {name: torch.full_like(tensor, value) for name, tensor in good.state.items()}
        with pytest.raises(InputError, match=said):
            registry.publish("road", replace(good, state=state))
    assert registry.versions("road") == []


def test_readers_never_meet_half_a_model_while_models_are_published_and_promoted(uri: str) -> None:
    writer, done = open_registry(uri), threading.Event()
    writer.publish("road", BUNDLES[0])
    writer.promote("road", A, "the first")

    def read() -> tuple[set[str], int]:
        registry, seen, rounds = open_registry(uri), {A}, 0
        while not done.wait(0.01) or rounds == 0:  # the server of the test is in this process: let it have its turn
            rounds += 1
            for version in registry.versions("road"):
                seen.add(version.version)
                assert load_bundle(f"registry:road@{version.version}", uri).model_id == version.model_id
            champion = registry.champion("road")
            assert champion is not None
            assert champion.version in {version.version for version in registry.versions("road")}
            assert load_bundle("registry:road@champion", uri).model_id in (A, B, C)
        return seen, rounds

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            for bundle in BUNDLES[1:]:
                version = writer.publish("road", bundle)
                writer.promote("road", version, "newer")
            for version in (A, B, C, A):
                writer.promote("road", version, "to and fro")
        finally:
            done.set()
        for reader in readers:
            seen, rounds = reader.result()
            assert seen <= {A, B, C}
            assert rounds
    assert writer.resolve("registry:road@champion").version == A


# Promotion


def check_history(registry: Registry, name: str, expected: dict[int, tuple[str, str]]) -> None:
    """The promotions are exactly `expected` (number: version, reason), and each names the one before it."""
    history = registry.promotions(name)
    assert [promotion.number for promotion in history] == list(range(len(expected), 0, -1))
    assert {each.number: (each.version, each.reason) for each in history} == expected
    for newer, older in itertools.pairwise(history):
        assert newer.previous == older.version
    assert history[-1].previous is None
    assert registry.champion(name) == history[0]


def test_a_promotion_says_what_why_when_and_after_what(registry: Registry, uri: str) -> None:
    for bundle in BUNDLES[:2]:
        registry.publish("road", bundle)
    scores = Scores(
        pixel_accuracy=0.9, mean_accuracy=0.7, mean_iou=0.6, frequency_weighted_iou=0.8, per_class_iou=(0.6,), pixels=10
    )
    assert registry.promote("road", A, "  the first\n one ") == 1
    assert registry.promote("road", B, "better", scores) == 2
    record = json.loads(open_store(uri).get("models/road/champions/00000002.json"))
    assert (record["number"], record["version"], record["model_id"], record["previous"]) == (2, B, B, A)
    assert (record["reason"], record["scores"]["mean_iou"]) == ("better", 0.6)
    assert record["time"]
    check_history(registry, "road", {1: (A, "the first one"), 2: (B, "better")})
    resolved = registry.resolve("registry:road@champion")
    assert (resolved.name, resolved.version, resolved.model_id, resolved.champion) == ("road", B, B, 2)
    assert load_bundle(resolved.uri).model_id == B
    with pytest.raises(InputError, match="needs a reason"):
        registry.promote("road", A, " \n")


def test_promoting_an_older_version_again_goes_back_to_it(registry: Registry) -> None:
    for bundle in BUNDLES[:2]:
        registry.promote("road", registry.publish("road", bundle), "new")
    assert registry.promote("road", A, "B mistakes snow for sky") == 3
    assert registry.resolve("registry:road").version == A
    check_history(registry, "road", {1: (A, "new"), 2: (B, "new"), 3: (A, "B mistakes snow for sky")})


def test_promotions_from_threads_get_one_number_each_in_one_order(registry: Registry) -> None:
    for bundle in BUNDLES[:2]:
        registry.publish("road", bundle)
    start = threading.Barrier(6)

    def promote(index: int) -> list[tuple[int, tuple[str, str]]]:
        start.wait()
        mine = [((A, B)[(index + turn) % 2], f"{index}.{turn}") for turn in range(3)]
        return [(registry.promote("road", version, reason), (version, reason)) for version, reason in mine]

    with ThreadPoolExecutor(6) as threads:
        promoted = [each for part in threads.map(promote, range(6)) for each in part]
    assert sorted(number for number, _ in promoted) == list(range(1, 19))
    check_history(registry, "road", dict(promoted))


PROMOTER = """
import json, sys
from pipeline.models.registry import open_registry
print("ready", flush=True)
for line in sys.stdin:
    uri, name, version = json.loads(line)
    registry = open_registry(uri)
    numbers = [registry.promote("road", version, f"{name}.{turn}") for turn in range(6)]
    print(json.dumps(numbers), flush=True)
"""


@pytest.fixture(scope="module")
def promoters(s3_endpoint: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that promote in a registry as soon as they are told which."""
    command = [sys.executable, "-c", PROMOTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    processes: list[subprocess.Popen[str]] = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_promotions_from_processes_get_one_number_each_in_one_order(
    registry: Registry, uri: str, promoters: list[subprocess.Popen[str]]
) -> None:
    registry.publish("road", BUNDLES[0])
    for index, process in enumerate(promoters):
        process.stdin.write(json.dumps([uri, str(index), A]) + "\n")
    numbers = [json.loads(process.stdout.readline()) for process in promoters]
    assert sorted(number for part in numbers for number in part) == list(range(1, 13))
    expected = {
        number: (A, f"{index}.{turn}") for index, part in enumerate(numbers) for turn, number in enumerate(part)
    }
    check_history(registry, "road", expected)


def test_a_verdict_about_an_outdated_champion_promotes_nothing(registry: Registry) -> None:
    for bundle in BUNDLES:
        registry.publish("road", bundle)
    assert registry.promote("road", A, "first", after=0) == 1
    assert registry.promote("road", B, "better than A", after=1) == 2
    with pytest.raises(ChampionChanged, match="number 2, no longer 1"):
        registry.promote("road", C, "better than A", after=1)
    assert registry.promote("road", B, "better than A", after=1) == 2, "a retry finds that it is done"
    assert len(registry.promotions("road")) == 2


def test_a_damaged_promotion_is_named_and_no_older_champion_takes_its_place(registry: Registry, uri: str) -> None:
    registry.promote("road", registry.publish("road", BUNDLES[0]), "first")
    key = "models/road/champions/00000002.json"
    first = open_store(uri).get("models/road/champions/00000001.json")
    for data in (b"", b"{", b"[]", first, first.replace(b'"number": 1', b'"number": 2').replace(A.encode(), b"../x")):
        open_store(uri).put(key, data)
        with pytest.raises(InputError, match=r"champions/00000002\.json is damaged"):
            registry.resolve("registry:road@champion")
        with pytest.raises(InputError, match=r"champions/00000002\.json is damaged"):
            registry.promote("road", A, "again")
    open_store(uri).delete(key)
    assert registry.promote("road", A, "again") == 2


def test_a_record_with_fields_of_a_later_program_is_still_read(registry: Registry, uri: str) -> None:
    registry.promote("road", registry.publish("road", BUNDLES[0]), "first")
    store = open_store(uri)
    record = json.loads(store.get("models/road/champions/00000001.json")) | {"approved_by": "someone"}
    store.put("models/road/champions/00000001.json", json.dumps(record).encode())
    assert registry.resolve("registry:road").version == A


def test_strangers_in_the_folders_are_no_models_and_no_champions(registry: Registry, uri: str) -> None:
    registry.promote("road", registry.publish("road", BUNDLES[0]), "first")
    store = open_store(uri)
    for key in (
        "models/README.md", "models/road/notes.txt", "models/road/champions/99.json", "models/model.json",
        "models/road/champions/0000000\uff12.json", f"models/-x/{A}/model.json", "models/road/latest/model.json",
        f"models/road/{A}/deep/model.json", "other/road/champions/00000009.json",
    ):  # fmt: skip
        store.put(key, b"{}")
    assert registry.names() == ["road"]
    assert [version.version for version in registry.versions("road")] == [A]
    assert [each.number for each in registry.promotions("road")] == [1]


# What cannot be


def test_what_is_not_there_is_named_with_what_is(registry: Registry, uri: str) -> None:
    registry.publish("road", BUNDLES[0])
    registry.publish("sea", BUNDLES[0])
    with pytest.raises(InputError, match=r"there is no model raod in the registry .*there are: road, sea"):
        registry.resolve("registry:raod@champion")
    with pytest.raises(InputError, match="road has no champion yet"):
        registry.resolve("registry:road")
    with pytest.raises(InputError, match=f"road has no version {B}"):
        registry.resolve(f"registry:road@{B}")


def test_places_that_are_no_registry_are_named(tmp_path: Path, s3_endpoint: str) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_registry(str(tmp_path / "nowhere")).resolve("registry:road")
    with pytest.raises(InputError, match="no such bucket"):
        open_registry("s3://no-such-bucket-here/x").resolve("registry:road")
    with pytest.raises(InputError, match="no such bucket"):
        open_registry("s3://no-such-bucket-here/x").publish("road", BUNDLES[0])
    with pytest.raises(InputError, match="cannot be written"):
        open_registry("/proc/registry").publish("road", BUNDLES[0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="it holds none yet"):
        open_registry(str(tmp_path / "empty")).resolve("registry:road")


@pytest.fixture
def proxy(s3_endpoint: str, atomic_s3: None) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint) as faulty:
        yield faulty


@pytest.mark.skipif("FCN_TEST_S3_ENDPOINT" in os.environ, reason="needs a server that takes unsigned headers")
def test_a_service_that_ignores_create_only_writes_is_refused(bucket: str, proxy: FaultyS3) -> None:
    registry = open_registry(f"s3://{bucket}/r?endpoint_url={proxy.endpoint}")
    registry.promote("road", registry.publish("road", BUNDLES[0]), "first")
    proxy.dropped_headers = {"if-none-match"}
    with pytest.raises(InputError, match="ignores If-None-Match"):
        registry.publish("road", BUNDLES[1])
    with pytest.raises(InputError, match="ignores If-None-Match"):
        registry.promote("road", A, "again")
    assert [info.key for info in open_store(f"s3://{bucket}/r").list("models/")] == [
        f"models/road/{A}/model.json",
        f"models/road/{A}/model.safetensors",
        "models/road/champions/00000001.json",
    ]


def exclusive(uri: str) -> bool:
    """Whether the service honours create-only writes here."""
    store = open_store(uri)
    store.create("probe", b"1")
    try:
        store.create("probe", b"2")
    except ObjectExists:
        return True
    finally:
        store.delete("probe")
    return False


def test_a_versioned_bucket_keeps_the_promises_or_is_refused(bucket: str, atomic_s3: None) -> None:
    boto3.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    registry = open_registry(f"s3://{bucket}/r")
    if "FCN_TEST_S3_ENDPOINT" in os.environ and not exclusive(f"s3://{bucket}/r"):
        with pytest.raises(InputError, match="ignores If-None-Match"):
            registry.publish("road", BUNDLES[0])
        assert registry.names() == []
        return
    registry.publish("road", BUNDLES[0])
    assert [registry.promote("road", A, "again") for _ in range(3)] == [1, 2, 3]
    found = boto3.client("s3").list_object_versions(Bucket=bucket)
    assert len(found["Versions"]) == 5, "one version of each object, and nothing of the checks"
    assert found.get("DeleteMarkers", []) == []


def test_a_write_whose_answer_was_lost_counts_once(bucket: str, proxy: FaultyS3) -> None:
    registry = open_registry(f"s3://{bucket}/r?endpoint_url={proxy.endpoint}")
    proxy.matches = lambda method, path: method == "PUT" and path.endswith((".json", ".safetensors"))
    proxy.faults = ["lost_reply", "lost_reply"]
    version = registry.publish("road", BUNDLES[0])
    assert proxy.faults == []
    proxy.faults = ["lost_reply"]
    assert registry.promote("road", version, "first") == 1
    assert proxy.faults == []
    assert registry.promote("road", version, "second") == 2
    check_history(registry, "road", {1: (A, "first"), 2: (A, "second")})
    assert load_bundle("registry:road", registry.uri).model_id == A


def test_storage_that_is_away_is_no_bad_input(bucket: str) -> None:
    options = StorageOptions(connect_seconds=0.2, retry_seconds=0.5, check_seconds=0.5)
    away = Registry(open_store(f"s3://{bucket}/r?endpoint_url=http://127.0.0.1:9", options))
    for call in (
        lambda: away.resolve("registry:road"),
        lambda: away.publish("road", BUNDLES[0]),
        lambda: away.promote("road", A, "because"),
    ):
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            call()


def test_reading_needs_no_right_to_write(tmp_path: Path) -> None:
    registry = open_registry(str(tmp_path / "r"))
    registry.promote("road", registry.publish("road", BUNDLES[0]), "first")

    class ReadOnly(LocalStore):
        def put(self, key: str, data: bytes) -> None:
            raise AccessDenied(key)

        create = put

        def delete(self, key: str) -> None:
            raise AccessDenied(key)

        def check_writable(self) -> None:
            raise AccessDenied(self.uri)

        def at(self, path: str) -> "ReadOnly":
            return ReadOnly(f"{self.uri}/{path}")

    reader = Registry(ReadOnly(str(tmp_path / "r")))
    assert reader.resolve("registry:road@champion").version == A
    assert [version.version for version in reader.versions("road")] == [A]
    with pytest.raises(InputError, match="the registry cannot be written"):
        reader.promote("road", A, "not allowed")
