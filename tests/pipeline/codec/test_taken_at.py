"""When an image was taken comes from its EXIF, with the offset where there is one, and never as an error."""

import io
import random
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from pipeline.codec.processes import CodecPool
from pipeline.codec.taken_at import TakenAt, taken_at
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.outputs.query import open_tables, run_query
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process
from tests.samples import photo

NOON = datetime(2026, 11, 29, 6, 38, 1)


def image(format: str = "JPEG", time: str = "2026:11:29 06:38:01", offset: str | None = "+09:00") -> bytes:
    tags: dict[int, str] = {ExifTags.Base.DateTimeOriginal: time}
    if offset is not None:
        tags[ExifTags.Base.OffsetTimeOriginal] = offset
    sink = io.BytesIO()
    pixels = Image.fromarray(photo(40, 30))
    if format == "TIFF":
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        directory[ExifTags.IFD.Exif] = tags
        pixels.save(sink, format, tiffinfo=directory)
    else:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 1  # PNG's writer leaves out EXIF that has no tag of its own
        exif.get_ifd(ExifTags.IFD.Exif).update(tags)
        pixels.save(sink, format, exif=exif)
    return sink.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_cameras_clock_and_its_offset_are_read_from_every_format_that_has_exif(format: str) -> None:
    found = taken_at(image(format))
    assert found == TakenAt(NOON, 540)
    assert found.utc == datetime(2026, 11, 28, 21, 38, 1)


def test_exif_behind_the_picture_of_a_png_is_found() -> None:
    """As programs write it that add it to a file that is there."""
    data = image("PNG")
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    assert taken_at(data[:start] + data[end:last] + data[start:end] + data[last:]) == TakenAt(NOON, 540)


def test_blank_lines_before_an_image_do_not_hide_when_it_was_taken() -> None:
    assert taken_at(b"\r\n" + image()) == TakenAt(NOON, 540)


def test_without_an_offset_the_moment_in_utc_is_not_known() -> None:
    found = taken_at(image(offset=None))
    assert found == TakenAt(NOON, None)
    assert found.utc is None


@pytest.mark.parametrize("time", ["0000:00:00 00:00:00", "2026:13:01 00:00:00", "yesterday", "", "2026-11-29T06:38:01"])
def test_a_clock_that_was_never_set_says_nothing(time: str) -> None:
    assert taken_at(image(time=time)) is None


@pytest.mark.parametrize("offset", ["Z", "+25:00", "+09:75", "9"])
def test_an_offset_that_makes_no_sense_is_none(offset: str) -> None:
    assert taken_at(image(offset=offset)) == TakenAt(NOON, None)


def test_files_without_exif_and_files_that_are_no_images_say_nothing() -> None:
    sink = io.BytesIO()
    Image.fromarray(photo(40, 30)).save(sink, "JPEG")
    for data in (sink.getvalue(), b"", b"Exif\0\0", b"II*\0", b"no image Exif\0\0"):
        assert taken_at(data) is None


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_damaged_exif_gives_a_time_or_none_and_no_error(format: str) -> None:
    whole = image(format)
    start = whole.index(b"2026:11:29") - 120 if format == "JPEG" else 0
    chance = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(max(0, start), min(len(data), start + 200))] = chance.randrange(256)
        found = taken_at(bytes(data))
        assert found is None or isinstance(found.time, datetime)


def test_it_comes_through_a_codec_worker_with_the_pixels() -> None:
    with CodecPool(workers=1) as codecs:
        assert codecs.decode_now(image()).taken_at == TakenAt(NOON, 540)
        assert codecs.decode_now(image(time="")).taken_at is None


def test_it_is_a_column_of_results_and_null_in_files_of_0_1(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dated.jpg").write_bytes(image())
    (tmp_path / "photos" / "plain.jpg").write_bytes(image(time=""))
    output = open_store(str(tmp_path / "labels"))
    segment(
        SegmentJob(
            source=str(tmp_path / "photos"), output=output.uri, model=str(model_dir), device="cpu", engine="torch",
            actors=1, cpus_per_actor=1, codec_workers=1, no_report=True,
        )
    )  # fmt: skip
    expected = [("dated.jpg", NOON, 540), ("plain.jpg", None, None)]
    columns = ["key", "taken_at", "taken_at_offset"]
    assert [tuple(row[name] for name in columns) for row in read_current(output, columns).to_pylist()] == expected
    question = "SELECT key, taken_at, taken_at_offset FROM current ORDER BY key"

    def ask() -> list[tuple[object, ...]]:
        with open_tables(output) as connection:
            return [tuple(row.values()) for row in run_query(connection, question).read_all().to_pylist()]

    assert ask() == expected
    # The same file as 0.1 wrote it.
    (file,) = (tmp_path / "labels" / "results").rglob("*.parquet")
    old = pq.ParquetFile(file).read().drop_columns(["taken_at", "taken_at_offset"])
    pq.write_table(old.replace_schema_metadata({"fcn_schema": "results/1"}), file)
    assert read_current(output, columns)["taken_at"].to_pylist() == [None, None]
    assert ask() == [("dated.jpg", None, None), ("plain.jpg", None, None)]
