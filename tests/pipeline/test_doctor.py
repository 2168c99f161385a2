"""`fcn doctor`: what is right is said to be right, and what is wrong is named with what to do."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline import container, doctor, open_registry
from pipeline.cli.app import run as fcn
from pipeline.codec.sandbox.confinement import Confinement
from pipeline.doctor import DoctorPlaces, Finding, examine
from pipeline.doctor.codecs import describe
from pipeline.storage.local import LocalStore
from pipeline.storage.store import ObjectInfo
from tests.pipeline.test_container import version_1
from tests.samples import model


def findings(check: str, **places: Any) -> list[Finding]:
    """What the checks of that name found, Ray left out."""
    return [found for found in examine(DoctorPlaces(ray=False, **places)) if found.check == check]


def test_this_machine_is_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["doctor", "--no-ray", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "nothing is wrong" in printed
    for check in ("python", "packages", "torch", "device", "cpu", "memory", "disk", "codecs", "registry"):
        assert f" {check}: " in printed


@pytest.mark.parametrize(
    ("held", "state", "words"),
    [
        (Confinement(privileges=True, landlock=7, seccomp=True), "ok", "Landlock (version 7)"),
        (Confinement(privileges=True, landlock=0, seccomp=True), "note", "not by Landlock"),
        (Confinement(privileges=False, landlock=0, seccomp=False), "note", "not by no_new_privs, Landlock, seccomp"),
    ],
)
def test_what_confines_decoding_is_told_and_what_is_missing_is_not_claimed(
    held: Confinement, state: str, words: str
) -> None:
    found = describe(held)
    assert found.state == state
    assert words in found.found
    assert found.found.count("Landlock") == 1
    assert bool(found.remedy) == (state != "ok")


def test_ray_is_tried(ray_cluster: None) -> None:
    (found,) = [found for found in examine(DoctorPlaces()) if found.check == "ray"]
    assert found.state == "ok", found
    assert "a worker answered" in found.found


def test_a_ray_that_does_not_answer_is_named() -> None:
    # A process of its own: in this one a Ray may be running already, which would be asked instead.
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from pipeline.cli.app import main; main(sys.argv[1:])",
         "doctor", "--ray-address", "127.0.0.1:1", "--json"],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (found,) = [item for item in json.loads(done.stdout)["findings"] if item["check"] == "ray"]
    assert found["state"] == "wrong"
    assert "127.0.0.1:1" in found["found"]
    assert found["remedy"]


def test_a_folder_that_is_not_there_yet_can_be_an_output_and_no_source(tmp_path: Path) -> None:
    place = str(tmp_path / "later")
    (both,) = findings(f"storage {place}", both=(place,))
    assert both.state == "ok"
    (source,) = findings(f"storage {place}", sources=(place,))
    assert source.state == "wrong"
    assert place in source.found
    assert not (tmp_path / "later").exists()


def test_looking_at_storage_leaves_nothing(tmp_path: Path, bucket: str) -> None:
    uri = f"s3://{bucket}/labels"
    for place in (str(tmp_path), uri):
        (found,) = findings(f"storage {place}", both=(place,))
        assert found.state == "ok", found
        assert "created only once" in found.found
    assert list(tmp_path.iterdir()) == []
    assert boto3.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_bucket_that_is_not_there_makes_the_exit_code_1(s3_endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["doctor", "--no-ray", "s3://no-such-bucket-here"]) == 1
    printed = capsys.readouterr().out
    assert "wrong  storage s3://no-such-bucket-here" in printed
    assert "-> check the bucket's name" in printed


def test_nonsense_is_no_storage(tmp_path: Path) -> None:
    (found,) = findings("storage ftp://x", both=("ftp://x",))
    assert found.state == "wrong"


@pytest.mark.parametrize(
    ("off", "state"), [(timedelta(seconds=5), "ok"), (timedelta(minutes=2), "note"), (timedelta(hours=1), "wrong")]
)
def test_a_clock_that_is_off_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: timedelta, state: str
) -> None:
    real = LocalStore.head

    def head(self: LocalStore, key: str) -> ObjectInfo:
        info = real(self, key)
        return ObjectInfo(info.key, info.etag, info.size, datetime.now(UTC) + off)

    monkeypatch.setattr(LocalStore, "head", head)
    (found,) = findings(f"storage {tmp_path}", both=(str(tmp_path),))
    assert found.state == state, found


def test_storage_that_replaces_what_it_should_only_create_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "create", LocalStore.put)
    (found,) = findings(f"storage {tmp_path}", both=(str(tmp_path),))
    assert found.state == "wrong"
    assert "create-only" in found.found
    assert list(tmp_path.iterdir()) == []


def test_a_registry_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = open_registry(str(tmp_path))
    version = registry.publish("road", model())
    registry.promote("road", version, "first")
    registry.publish("roof", model(seed=1))
    monkeypatch.setenv("FCN_REGISTRY", str(tmp_path))
    (found,) = findings("registry")
    assert (found.state, "2 names, 1 with a champion" in found.found) == ("ok", True)
    (missing,) = findings("registry", registry=str(tmp_path / "nowhere"))
    assert missing.state == "wrong"


def test_a_full_disk_and_little_memory_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 1 << 60)
    assert next(found.state for found in findings("disk")) == "wrong"
    assert next(found.state for found in findings("memory")) == "wrong"


def test_the_limits_of_the_container_are_those_that_jobs_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """22 GiB and 2 CPUs were found inside 900 MB and one."""
    root = version_1(tmp_path)
    for name in ("memory_limit", "memory_left", "usable_cpus"):
        monkeypatch.setattr(container, name, partial(getattr(container, name), root))
    memory = next(iter(findings("memory")))
    assert (memory.state, memory.found) == ("wrong", "300 MiB available of the 900 MiB of this container")
    (cpu,) = findings("cpu")
    assert cpu.found.startswith("1 of ")


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(doctor, "_cpu", broken)
    found = list(examine(DoctorPlaces(ray=False)))
    (cpu,) = [item for item in found if item.check == "cpu"]
    assert (cpu.state, "of all things" in cpu.found) == ("wrong", True)
    assert found[-1].check == "registry"


def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=99", "no-such-package-at-all", "pillow>=1"])
    (found,) = findings("packages")
    assert found.state == "wrong"
    assert "numpy is" in found.found
    assert "no-such-package-at-all is missing" in found.found
    assert "pillow" not in found.found


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["doctor", "--no-ray", "--json", "--source", str(tmp_path / "gone")]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert {item["check"] for item in answer["findings"] if item["state"] == "wrong"} == {f"storage {tmp_path}/gone"}
