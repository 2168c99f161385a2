"""HEIC in codec workers: its decoder starts threads, and a worker may only once such a file has come."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from pipeline.codec import processes
from pipeline.codec.images import decode
from pipeline.codec.processes import CodecPool
from pipeline.codec.sandbox.confinement import Confinement
from pipeline.errors import ImageError
from tests.fcn_core.decoding.test_heif import LOSSLESS, brands
from tests.hostile.formats import photo, sample
from tests.requires import requires


def heic(image: Image.Image | None = None, **options: object) -> bytes:
    requires("pillow_heif", install="'fcn-pipeline[heif]'")
    import pillow_heif

    buffer = io.BytesIO()
    image = image or Image.fromarray(photo(64, 96))
    pillow_heif.from_pillow(image).save(buffer, **(LOSSLESS | options))
    return buffer.getvalue()


def test_a_worker_reads_heic_from_the_first_one_on_and_everything_else_as_before() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:30 08:15:00"
    dated = heic(exif=exif.tobytes())
    with CodecPool(1) as pool:
        pool.decode_now(sample("JPEG"))
        strict = pool.worker_pids()
        decoded = pool.decode_now(dated)
        np.testing.assert_array_equal(decoded.pixels, decode(dated).pixels)
        assert decoded.taken_at is not None
        assert decoded.taken_at.time.isoformat() == "2026-11-30T08:15:00"
        (pid,) = pool.worker_pids()
        assert [pid] != strict
        pool.decode_now(sample("JPEG"))
        assert len(os.listdir(f"/proc/{pid}/task")) == 1  # between images there is none beside the first
        pool.decode_now(heic())
        assert pool.worker_pids() == [pid]
        assert pool.confinement() == Confinement(*_held_of_a_strict_worker())


def _held_of_a_strict_worker() -> tuple[bool, int, bool]:
    with CodecPool(1) as pool:
        held = pool.confinement()
    return held.privileges, held.landlock, held.seccomp


def test_a_heic_too_large_for_the_memory_limit_is_told_from_a_damaged_one() -> None:
    large = heic(Image.new("RGB", (3000, 2000)), quality=10)  # which takes about 27 MB
    with CodecPool(1, memory_limit_bytes=20 << 20) as pool:
        with pytest.raises(ImageError) as caught:
            pool.decode_now(large)
        assert caught.value.reason == "out_of_memory"
        assert pool.decode_now(heic()).size == (64, 96)


def test_without_a_filter_that_tells_threads_from_processes_no_heic_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_installed", lambda: True)
    with CodecPool(1) as pool:
        pool.warm_up()
        pool.confinement()
        pool._slots[0].read_heif()
        pool.confinement()
        pool._slots[0].confinement = Confinement(True, 7, False)
        with pytest.raises(ImageError, match="seccomp") as caught:
            pool.decode_now(brands(b"heic", b"mif1"))
        assert caught.value.reason == "unsupported_format"
