"""The command line: bad input is one clear sentence and exit code 2, and the small commands do what they say."""

import json
import os
from pathlib import Path

import boto3
import pytest
from PIL import Image

from pipeline.cli.app import run as fcn
from pipeline.exports.names import plain_names
from pipeline.outputs.results import ClassArea, ResultRow, commit_shard
from pipeline.storage.opening import open_store
from tests.commands import refused
from tests.samples import fill, jpeg


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    fill(tmp_path / "photos", 2)
    return tmp_path / "photos"


def test_a_missing_source_is_named(tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "segment", tmp_path / "nowhere", tmp_path / "out", "--model", model_dir)
    assert str(tmp_path / "nowhere") in message
    assert not (tmp_path / "out").exists()


def test_an_empty_source_is_said_to_be_empty(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    message = refused(capsys, "segment", tmp_path / "none", tmp_path / "out", "--model", model_dir)
    assert "is empty" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--include", "jpg"), "none of the 2 objects under {photos} is chosen by --include 'jpg'; a glob is held"),
        (("--include", "*.tiff", "--exclude", "x"), "is chosen by --include '*.tiff' --exclude 'x'"),
        (("--exclude", "*"), "is chosen by --exclude '*'"),
    ],
)
def test_a_choice_of_images_that_chooses_none_is_refused_unless_that_is_expected(
    photos: Path, tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    command = ["segment", photos, tmp_path / "out", "--model", model_dir, "--actors", "1", *options]
    for more in ((), ("--dry-run",)):
        assert said.format(photos=photos) in refused(capsys, *command, *more)
    assert fcn([*map(str, command), "--allow-empty"]) == 0
    assert "nothing to do: 0 of 2" in capsys.readouterr().err


def test_files_that_are_no_images_are_refused_as_a_source(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    message = refused(capsys, "segment", tmp_path / "texts", tmp_path / "out", "--model", model_dir)
    assert "none of the 1 objects" in message
    assert "is named like an image" in message


def test_an_empty_source_may_be_expected(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "none").mkdir()
    command = ["segment", str(tmp_path / "none"), str(tmp_path / "out"), "--model", str(model_dir), "--allow-empty"]
    assert fcn(command) == 0


@pytest.mark.parametrize("command", ["verify", "gc", "compact"])
def test_a_folder_that_is_no_output_is_not_called_sound_or_clean(
    photos: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert f"{photos} is no output of `fcn segment`" in refused(capsys, command, photos)
    assert fcn([command, str(photos), "--allow-empty"]) == 0


def test_an_output_inside_the_source_is_refused(
    photos: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in (photos / "labels", photos, f"file://{photos}/labels"):
        assert "lies inside source" in refused(capsys, "segment", photos, output, "--model", model_dir)
    assert len(list(photos.iterdir())) == 2


def test_a_source_inside_what_jobs_write_is_refused(
    photos: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "labels" / "masks" / "x", 1)
    message = refused(capsys, "segment", tmp_path / "labels" / "masks", tmp_path / "labels", "--model", model_dir)
    assert "is what jobs write" in message


def test_places_that_only_look_alike_are_told_apart(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "photos q?x=1"
    fill(odd, 1)
    (tmp_path / "link").symlink_to(odd)
    for output in (odd / "labels", tmp_path / "link" / "labels"):
        assert "lies inside source" in refused(capsys, "segment", odd, output, "--model", model_dir)
    message = refused(capsys, "segment", tmp_path / "p#1", tmp_path / "p#2", "--model", model_dir)
    assert "does not exist" in message
    message = refused(capsys, "segment", "s3://b/p?region=eu-west-1", "s3://b/p/labels", "--model", model_dir)
    assert "lies inside source" in message


def test_an_output_beside_a_source_with_the_same_beginning_is_fine(
    photos: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "segment", photos, f"{photos}-labels", "--model", photos / "no-model")
    assert "lies inside" not in message


def test_an_unwritable_output_is_refused(photos: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Not even root can make a folder there.
    assert "/proc/labels" in refused(capsys, "segment", photos, "/proc/labels", "--model", model_dir)


def test_an_output_that_is_a_file_is_refused(
    photos: Path, tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file") in refused(capsys, "segment", photos, tmp_path / "file", "--model", model_dir)


def test_a_missing_model_is_named(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "segment", photos, tmp_path / "out", "--model", tmp_path / "no-model")
    assert "there is no model at" in message
    assert "no-model" in message


def test_a_damaged_model_is_named(
    photos: Path, tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in model_dir.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    message = refused(capsys, "segment", photos, tmp_path / "out", "--model", damaged)
    assert "model.safetensors" in message
    assert "SHA-256" in message


def test_a_missing_bucket_is_named(
    s3_endpoint: str, photos: Path, model_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "no-such-bucket-here" in refused(
        capsys, "segment", "s3://no-such-bucket-here/x", tmp_path, "--model", model_dir
    )
    assert "no-such-bucket-here" in refused(
        capsys, "segment", photos, "s3://no-such-bucket-here/x", "--model", model_dir
    )


def test_missing_credentials_are_named(
    bucket: str,
    model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key="a.jpg", Body=jpeg(10, 10))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    message = refused(capsys, "segment", f"s3://{bucket}", tmp_path / "out", "--model", model_dir)
    assert "credentials" in message


@pytest.mark.skipif("FCN_TEST_S3_ENDPOINT" not in os.environ, reason="the built-in test server accepts any credentials")
def test_wrong_credentials_are_named(
    bucket: str, model_dir: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    message = refused(capsys, "segment", photos, f"s3://{bucket}/out", "--model", model_dir)
    assert "does not accept the credentials" in message
    assert "not-the-secret" not in message


def test_an_unknown_option_suggests_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model" in refused(capsys, "segment", "a", "b", "--modle", "m")


def test_a_value_out_of_range_names_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "segment", "a", "b", "--model", "m", "--max-error-rate", "3")
    assert "--max-error-rate" in message
    assert "less than or equal to 1" in message


def test_a_config_file_gives_options_and_the_command_line_wins(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(f"source: {photos}\noutput: {tmp_path / 'out'}\nmodel: {tmp_path / 'from-file'}\n")
    assert "from-file" in refused(capsys, "segment", "--config", config)
    assert "from-line" in refused(capsys, "segment", "--config", config, "--model", tmp_path / "from-line")
    config.write_text("sauce: a\n")
    assert "sauce" in refused(capsys, "segment", "--config", config, "a", "b", "--model", "m")
    assert "No such file" in refused(capsys, "segment", "--config", tmp_path / "none.yaml")


def test_model_new_and_show_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--arch",
        "fcn16s",
        "--backbone",
        "vgg16",
        "--labels",
        "voc",
        "--width",
        "0.125",
        "--head-width",
        "16",
    ]
    assert fcn(["model", "new", *options, "-o", str(tmp_path / "m")]) == 0
    made = capsys.readouterr().out
    assert fcn(["model", "show", str(tmp_path / "m"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model_id"] in made
    assert shown["architecture"]["arch"] == "fcn16s"
    assert len(shown["labels"]["names"]) == 21
    assert fcn(["model", "show", str(tmp_path / "m")]) == 0
    assert "aeroplane" in capsys.readouterr().out


def test_model_new_does_not_replace_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--width", "0.125", "--head-width", "16", "-o", str(tmp_path / "m")]
    assert fcn(["model", "new", *small]) == 0
    capsys.readouterr()
    assert "holds another model" in refused(capsys, "model", "new", *small, "--seed", "1")
    assert fcn(["model", "new", *small, "--seed", "1", "--overwrite"]) == 0


def test_unknown_labels_are_refused_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "camvid" in refused(capsys, "model", "new", "--labels", "voc2007", "-o", tmp_path / "m")


def test_preview_draws_the_image_and_its_classes(
    photos: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "look.png"
    assert fcn(["preview", str(photos / "0000.jpg"), "--model", str(model_dir), "-o", str(target)]) == 0
    assert Image.open(target).width > 200
    assert "confidence" in capsys.readouterr().err


def test_preview_of_what_is_no_image_is_refused(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.jpg").write_text("words")
    assert "words.jpg" in refused(capsys, "preview", tmp_path / "words.jpg", "--model", model_dir)
    assert "none.jpg" in refused(capsys, "preview", tmp_path / "none.jpg", "--model", model_dir)


def test_runs_of_an_output_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert fcn(["runs", str(tmp_path)]) == 0
    assert "no runs" in capsys.readouterr().err


def test_masks_export_writes_plain_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datetime import UTC, datetime

    from fcn_core import PredictorSettings
    from pipeline.outputs.identity import Recipe
    from pipeline.outputs.mask_formats.objects import mask_key
    from pipeline.outputs.runs import RunRecord, write_record

    store = open_store(str(tmp_path / "out"))
    when = datetime(2026, 1, 1, tzinfo=UTC)
    recipe = Recipe("m", "p")
    rows = []
    for key in ("cam/a.jpg", "cam/b.jpg", "cam/b.png", "bad.jpg"):
        if key == "bad.jpg":
            rows.append(ResultRow(key, "e", 1, when, "error", "m", "p", error="truncated", message="..."))
            continue
        place = mask_key(recipe, key, "e")
        store.create(place, f"mask of {key}".encode())
        area = (ClassArea(0, "sky", 1, 1.0),)
        rows.append(ResultRow(key, "e", 1, when, "ok", "m", "p", width=1, height=1, mask_key=place, areas=area))
    commit_shard(store, "r1", 0, rows)
    settings = PredictorSettings(
        device="cpu", precision="float32", batch_size=1, tile_pixels=1 << 20, threads=1, deterministic=False
    )
    record = RunRecord(
        run_id="r1", state="finished", job={}, job_digest="d", model_id="m", params_id="p", recipe=recipe.name,
        settings=settings, images=4, shards=1, started=when, version="0",
    )  # fmt: skip
    write_record(store, record)
    assert fcn(["masks", "export", str(tmp_path / "out"), str(tmp_path / "plain")]) == 0
    assert "3 masks" in capsys.readouterr().out
    exported = {
        str(path.relative_to(tmp_path / "plain")): path.read_text() for path in (tmp_path / "plain").rglob("*.png")
    }
    assert exported == {
        "cam/a.png": "mask of cam/a.jpg",
        "cam/b.jpg.png": "mask of cam/b.jpg",
        "cam/b.png.png": "mask of cam/b.png",
    }
    names = plain_names(["a.jpg", "a.png", "a.jpg.jpg", "../x.jpg", "b//c.jpg", "d/"])
    assert len(set(names.values())) == len(names)
    assert not any(part in ("", "..") for name in names.values() for part in name.split("/"))
    message = refused(capsys, "masks", "export", tmp_path / "out", tmp_path / "plain", "--recipe", "nope")
    assert recipe.name in message
    assert "there are no runs" in refused(capsys, "masks", "export", tmp_path / "plain", tmp_path / "more")
