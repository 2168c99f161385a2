"""One labelling run over thousands of files made to do harm: each gets its row with a reason, no more."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation.job import segment
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store
from tests.hostile.files import EXTENSIONS, IMAGE_MEMORY, MAX_PIXELS, HostileFile, hostile_files
from tests.in_process import segment_in_process
from tests.processes import memory_of, ours

REASONS = {
    *("empty_file", "not_an_image", "unsupported_format", "truncated", "damaged"),
    *("too_many_pixels", "file_too_large", "out_of_memory", "timed_out", "decoder_crashed"),
}
# Marks of an exception as Python prints it, of an address, of an internal name.
RAW = re.compile(
    r"Traceback|[a-z]Error\b|Exception\b|<class|<[a-z_.]+ object|0x[0-9a-f]{6}|NoneType|__\w+__|\w+\.\w+\("
)
SENTENCE = re.compile(r"[A-Z].{15,250}\.")
SAMPLE_SECONDS = 0.2


@contextmanager
def watched_codecs() -> Iterator[dict[int, int]]:
    """Watches the codec workers below this process; yields the most memory that each was seen to hold."""
    peaks: dict[int, int] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            for pid in ours("pipeline.codec.worker_main"):
                peaks[pid] = max(peaks.get(pid, 0), memory_of(pid, "VmHWM"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


class Run:
    """What the one run of this module left."""

    def __init__(self, folder: Path, model_dir: Path) -> None:
        self.files: dict[str, HostileFile] = {}
        source = folder / "photos"
        for file in hostile_files():
            path = source / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)
            self.files[file.name] = file
        job = SegmentJob(
            source=str(source), output=str(folder / "labels"), model=str(model_dir), device="cpu", actors=1,
            cpus_per_actor=1, codec_workers=2, max_pixels=MAX_PIXELS, image_memory=IMAGE_MEMORY, image_timeout=20,
            deterministic=True, no_report=True,
        )  # fmt: skip
        with watched_codecs() as self.peaks, pytest.MonkeyPatch.context() as patch:
            segment_in_process(patch)
            self.report: RunReport = segment(job)
        self.output = open_store(job.output)
        self.rows: list[dict[str, Any]] = read_current(self.output).to_pylist()


@pytest.fixture(scope="module")
def run(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("hostile"), model_dir)


def test_the_run_ends_well_with_one_row_for_every_file(run: Run) -> None:
    assert len(run.files) >= 2000
    assert run.report.state == "finished"
    assert run.report.counts.images == len(run.files)
    keys = [row["key"] for row in run.rows]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(run.files)


def test_every_mask_is_there_and_as_its_row_says(run: Run) -> None:
    assert [row["key"] for row in run.rows if row["status"] == "ok" and not row["mask_key"]] == []
    assert list(verify(run.output, Verified())) == []


def test_every_error_has_a_known_name_and_a_sentence_for_people(run: Run) -> None:
    failed = [row for row in run.rows if row["status"] != "ok"]
    assert len(failed) > 1000
    assert {row["error"] for row in failed} <= REASONS
    messages = {row["message"] for row in failed}
    assert [text for text in messages if not SENTENCE.fullmatch(text)] == []
    assert [text for text in messages if RAW.search(text)] == []


def test_files_with_one_right_outcome_have_it(run: Run) -> None:
    outcomes = {row["key"]: row["error"] or "ok" for row in run.rows}
    expected = {name: file.expected for name, file in run.files.items() if file.expected}
    assert {name: outcomes[name] for name in expected} == expected


def test_a_cut_file_is_no_picture_unless_all_of_the_picture_is_there(run: Run) -> None:
    """What is cut off then is an end mark or a checksum, and the mask is that of the whole file."""
    masks = {row["key"]: row["mask_sha256"] for row in run.rows if row["key"].startswith("cut/")}
    whole = {Path(name).suffix: sha for name, sha in masks.items() if "/whole." in name}
    assert len(whole) == len(EXTENSIONS)
    accepted = {name: sha for name, sha in masks.items() if sha is not None}
    assert len(accepted) < 0.05 * len(masks)
    assert {name for name, sha in accepted.items() if sha != whole[Path(name).suffix]} == set()


def test_no_codec_worker_held_more_memory_than_it_may(run: Run) -> None:
    """Beyond what it holds before it has seen any image, some 60 MB of interpreter and libraries."""
    assert run.peaks
    assert max(run.peaks.values()) <= IMAGE_MEMORY + (100 << 20)
