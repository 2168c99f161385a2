"""A folder of images that somebody gave you, with links in it to files of your own."""

import logging
import os
import pickle
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.data.check import check_dataset
from pipeline.errors import LinkRefused
from pipeline.jobs.dataset import DatasetOptions
from pipeline.outputs.current import read_current
from pipeline.segmentation.calibration import sample_images
from pipeline.sources.opening import open_source
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.in_process import segment_in_process
from tests.labelled import write_labelled
from tests.samples import jpeg


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Two images, a link from one to the other, and links to what is yours: a file, a folder."""
    folder, yours = tmp_path / "given", tmp_path / "given and more"
    (folder / "sub").mkdir(parents=True)
    yours.mkdir()
    (yours / "private.jpg").write_bytes(jpeg(40, 36, seed=1))
    (folder / "a.jpg").write_bytes(jpeg(40, 36))
    (folder / "sub" / "b.jpg").symlink_to(folder / "a.jpg")
    (folder / "sub" / "out.jpg").symlink_to("../../given and more/private.jpg")
    (folder / "yours").symlink_to(yours)
    (folder / "around").symlink_to(folder / "yours")
    return folder


ALL = ["a.jpg", "around/private.jpg", "sub/b.jpg", "sub/out.jpg", "yours/private.jpg"]


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list()]


def test_nothing_behind_a_link_out_of_the_folder_is_listed_or_read(
    given: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = pickle.loads(pickle.dumps(open_source(str(given))))
    assert keys(store) == ["a.jpg", "sub/b.jpg"]
    assert store.get("sub/b.jpg") == store.get("a.jpg")
    for key in sorted(set(ALL) - {"a.jpg", "sub/b.jpg"}):
        for read in (store.get, store.head, lambda key: store.get_range(key, 0, 1)):
            with pytest.raises(LinkRefused, match="--follow-links"):
                read(key)
    with pytest.raises(LinkRefused):
        store.at("yours").get("private.jpg")
    keys(store)
    assert [record.getMessage().count("--follow-links") for record in caplog.records] == [1] * 3, "each once"


@pytest.mark.parametrize("target", ["/root/.ssh/id", "/" + "n" * 300, "n" * 300])
def test_a_link_that_cannot_be_followed_hides_no_image(given: Path, target: str) -> None:
    """Whether by its target's name or, for all but root, by the rights of a folder on the way."""
    (given / "0.jpg").symlink_to(target)
    assert keys(open_source(str(given))) == ["a.jpg", "sub/b.jpg"]


def test_links_are_followed_when_asked_and_the_folder_itself_may_be_one(given: Path) -> None:
    assert keys(open_source(str(given), follow_links=True)) == ALL
    (given.parent / "link").symlink_to(given)
    assert keys(open_source(str(given.parent / "link"))) == ["a.jpg", "sub/b.jpg"]


def test_a_link_put_there_after_the_listing_is_not_read(given: Path) -> None:
    store = open_source(str(given))
    (info, *_) = store.list()
    private = given / "yours" / "private.jpg"
    os.utime(private, ns=(0, (given / "a.jpg").stat().st_mtime_ns))
    (given / "a.jpg").unlink()
    (given / "a.jpg").symlink_to(private)
    with pytest.raises(LinkRefused):
        store.get(info.key)


def test_a_thousand_links_are_a_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1000):
        (tmp_path / f"{number}.jpg").symlink_to("/etc/passwd")
    with caplog.at_level(logging.WARNING):
        assert keys(LocalStore(str(tmp_path)).as_source(follow_links=False)) == []
    assert len(caplog.records) == 11
    assert "more=true" in caplog.text


def test_a_job_its_ranking_and_its_copies_take_what_the_job_was_allowed(
    given: Path, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segment_in_process(monkeypatch)
    options = ("--model", model_dir, "--device", "cpu", "--engine", "torch", "--codec-workers", 1)
    for output, more, expected in (("strict", (), ["a.jpg", "sub/b.jpg"]), ("all", ("--follow-links",), ALL)):
        labels, project = tmp_path / output, tmp_path / f"{output}-project"
        assert fcn([str(word) for word in ("segment", given, labels, *options, *more)]) == 0
        rows = read_current(open_store(str(labels))).to_pylist()
        assert sorted(row["key"] for row in rows if row["status"] == "ok") == expected
        assert fcn(["rank", str(labels), "--copy-to", str(project)]) == 0
        assert len(list((project / "images").iterdir())) == len(expected)
    (tmp_path / "keys.txt").write_text("sub/out.jpg\n")
    assert fcn([str(word) for word in ("segment", given, tmp_path / "listed", *options, "--key-list",
                                       tmp_path / "keys.txt")]) == 0  # fmt: skip
    (row,) = read_current(open_store(str(tmp_path / "listed"))).to_pylist()
    assert row["error"] == "link_refused"
    assert "--follow-links" in row["message"]
    for path in (given / "a.jpg", given / "sub" / "b.jpg"):
        path.unlink()
    capsys.readouterr()
    assert "--follow-links" in refused(capsys, "segment", given, tmp_path / "none", *options)


def test_a_data_set_and_images_to_calibrate_with_are_confined_too(given: Path, tmp_path: Path) -> None:
    assert len(sample_images(str(given), 9)) == 2
    assert len(sample_images(str(given), 9, follow_links=True)) == 5
    write_labelled(tmp_path / "data", 2)
    (tmp_path / "data" / "SegmentationClass").rename(tmp_path / "masks")
    (tmp_path / "data" / "SegmentationClass").symlink_to(tmp_path / "masks")
    options = DatasetOptions(dataset=str(tmp_path / "data"), labels="camvid")
    assert not check_dataset(options, None).ok
    assert check_dataset(options.model_copy(update={"follow_links": True}), None).ok
