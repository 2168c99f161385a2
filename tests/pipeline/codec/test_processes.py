"""Codec workers: the same results as in this process, and no image can hurt anything but itself."""

import functools
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core.labels import encode_mask, preset
from pipeline.codec.images import Decoded, decode
from pipeline.codec.processes import CodecPool
from pipeline.errors import ImageError, PipelineError

LABELS = preset("voc")
PATIENCE = 120.0


def png(height: int, width: int, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@functools.cache
def slow_image() -> bytes:
    """Small as a file, a second or so to decode: flat, and large."""
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000), 7).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def failure(future: Future[Decoded] | Future[bytes]) -> ImageError:
    with pytest.raises(ImageError) as caught:
        future.result(timeout=PATIENCE)
    return caught.value


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def pool() -> Iterator[CodecPool]:
    with CodecPool(workers=2, memory_limit_bytes=1 << 30, timeout_seconds=30, max_pixels=100_000_000) as pool:
        yield pool


def test_a_pool_that_is_warmed_up_has_a_worker_before_the_first_image() -> None:
    with CodecPool(workers=3) as pool:
        assert pool.worker_pids() == []
        pool.warm_up()
        wait_until(lambda: len(pool.worker_pids()) == 1)


def test_decoding_gives_what_decoding_here_gives(pool: CodecPool) -> None:
    files = [png(height, width) for height, width in [(1, 1), (37, 53), (500, 375), (3, 2000)]] * 5
    for file, future in zip(files, [pool.decode(file) for file in files], strict=True):
        expected, decoded = decode(file, 10_000_000), future.result(timeout=PATIENCE)
        np.testing.assert_array_equal(decoded.pixels, expected.pixels)
        assert decoded.pixels.flags.c_contiguous
        assert decoded.pixels.flags.writeable
        assert decoded.orientation == expected.orientation


def test_reducing_gives_what_reducing_here_gives(pool: CodecPool) -> None:
    file = png(301, 203)
    expected, decoded = decode(file, 100_000, 64), pool.decode_now(file, 64)
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)
    assert decoded.full_size == expected.full_size == (301, 203)
    assert pool.decode_now(file, 301).full_size is None


def test_encoding_gives_what_encoding_here_gives(pool: CodecPool) -> None:
    camvid = preset("camvid")
    for seed, shape in enumerate([(1, 1), (40, 60), (375, 500)]):
        mask = np.random.default_rng(seed).integers(0, 11, shape, dtype=np.uint8)
        assert pool.encode(mask, LABELS).result(timeout=PATIENCE) == encode_mask(mask, LABELS)
        assert pool.encode(mask, camvid).result(timeout=PATIENCE) == encode_mask(mask, camvid)
        assert pool.encode(mask.T, camvid).result(timeout=PATIENCE) == encode_mask(mask.T.copy(), camvid)


def test_an_image_larger_than_the_arena_keeps_comes_through(pool: CodecPool) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 4000), (1, 2, 3)).save(buffer, "JPEG")
    decoded = pool.decode(buffer.getvalue()).result(timeout=PATIENCE)
    assert decoded.pixels.shape == (4000, 6000, 3)


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty_file"), (b"no image", "not_an_image")])
def test_a_bad_image_is_its_own_error_and_the_worker_stays(pool: CodecPool, data: bytes, reason: str) -> None:
    pool.decode(png(2, 2)).result(timeout=PATIENCE)
    before = pool.worker_pids()
    assert failure(pool.decode(data)).reason == reason
    assert set(before) <= set(pool.worker_pids())


def test_a_mask_that_does_not_fit_its_labels_blames_no_image(pool: CodecPool) -> None:
    with pytest.raises(PipelineError, match="LabelError") as caught:
        pool.encode(np.full((2, 2), 77, np.uint8), LABELS).result(timeout=PATIENCE)
    assert not isinstance(caught.value, ImageError)


def test_a_bomb_that_passes_the_pixel_limit_hits_the_memory_limit() -> None:
    with CodecPool(1, memory_limit_bytes=64 << 20, timeout_seconds=30, max_pixels=10**9) as pool:
        small = pool.decode(png(20, 20))
        bomb = pool.decode(slow_image())
        after = pool.decode(png(30, 30))
        assert small.result(timeout=PATIENCE).pixels.shape == (20, 20, 3)
        assert failure(bomb).reason == "out_of_memory"
        assert "--image-memory" in failure(bomb).message
        assert "--max-pixels" in failure(bomb).message
        assert after.result(timeout=PATIENCE).pixels.shape == (30, 30, 3)


def test_a_bomb_is_refused_from_its_header() -> None:
    with CodecPool(1, memory_limit_bytes=64 << 20, timeout_seconds=30, max_pixels=1_000_000) as pool:
        assert failure(pool.decode(slow_image())).reason == "too_many_pixels"


def test_a_stall_is_that_images_error_only() -> None:
    with CodecPool(1, timeout_seconds=3) as pool:
        pool.decode(png(2, 2)).result(timeout=PATIENCE)
        stalled = pool.decode(slow_image())
        stopped: set[int] = set()
        while not stalled.done():
            for pid in set(pool.worker_pids()) - stopped:
                os.kill(pid, signal.SIGSTOP)
                stopped.add(pid)
            time.sleep(0.001)
        assert failure(stalled).reason == "timed_out"
        assert len(stopped) == 2
        assert pool.decode(png(20, 20)).result(timeout=PATIENCE).pixels.shape == (20, 20, 3)


def test_an_image_whose_decoder_dies_every_time_is_that_images_error_only() -> None:
    with CodecPool(1, timeout_seconds=PATIENCE) as pool:
        pool.decode(png(2, 2)).result(timeout=PATIENCE)
        fatal = pool.decode(slow_image())
        killed: set[int] = set()
        while not fatal.done():
            for pid in set(pool.worker_pids()) - killed:
                time.sleep(0.02)  # let it take the image up
                os.kill(pid, signal.SIGSEGV)
                killed.add(pid)
            time.sleep(0.001)
        error = failure(fatal)
        assert error.reason == "decoder_crashed"
        assert "SIGSEGV" in error.message
        assert len(killed) == 2
        assert pool.decode(png(5, 5)).result(timeout=PATIENCE).pixels.shape == (5, 5, 3)


def test_a_worker_killed_once_costs_no_image() -> None:
    """The kernel kills for memory, an operator by mistake: the image was not at fault, and the run must not
    show it.
    """
    with CodecPool(2, timeout_seconds=PATIENCE) as pool:
        wait_until(lambda: [pool.decode(png(2, 2)).result(timeout=PATIENCE) for _ in range(4)] and pool.worker_pids())
        futures = [pool.decode(png(300, 300, seed)) for seed in range(24)]
        for pid in pool.worker_pids():
            os.kill(pid, signal.SIGKILL)
        for seed, future in enumerate(futures):
            np.testing.assert_array_equal(
                future.result(timeout=PATIENCE).pixels, decode(png(300, 300, seed), 100_000).pixels
            )


def test_a_worker_that_stops_moving_once_costs_no_image() -> None:
    with CodecPool(1, timeout_seconds=3) as pool:
        pool.decode(png(2, 2)).result(timeout=PATIENCE)
        os.kill(pool.worker_pids()[0], signal.SIGSTOP)
        assert pool.decode(png(4, 4)).result(timeout=PATIENCE).pixels.shape == (4, 4, 3)


def test_closing_waits_for_no_image_and_leaves_no_process() -> None:
    pool = CodecPool(2, timeout_seconds=PATIENCE)
    pool.decode(png(2, 2)).result(timeout=PATIENCE)
    busy = [pool.decode(slow_image()) for _ in range(6)]
    pids = pool.worker_pids()
    pool.close()
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises((PipelineError, CancelledError)):
        busy[-1].result(timeout=0)
    with pytest.raises(PipelineError, match="closed"):
        pool.decode(b"")
    pool.close()


def test_who_waits_for_a_worker_hears_that_the_pool_is_closed() -> None:
    pool = CodecPool(1, timeout_seconds=PATIENCE)
    pool.decode_now(png(2, 2))
    heard: list[str] = []

    def ask() -> None:
        try:
            pool.decode_now(slow_image())
        except PipelineError as error:
            heard.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not pool._idle)
    pool.close()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert len(heard) == 4
    assert all("closed" in text for text in heard)


@pytest.mark.parametrize("way", ["SIGKILL", "exit"])
def test_workers_die_with_their_parent(way: str) -> None:
    """Idle or in the middle of an image, however the parent goes."""
    script = textwrap.dedent("""
        import sys, os, time
        from pipeline.codec.processes import CodecPool
        pool = CodecPool(2, timeout_seconds=120)
        small, slow = (bytes.fromhex(line) for line in sys.stdin.read().split())
        [future.result() for future in [pool.decode(small) for _ in range(20)]]
        print(*pool.worker_pids(), flush=True)
        pool.decode(slow)
        if sys.argv[1] == "exit":
            os._exit(0)
        time.sleep(600)
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent:
        parent.stdin.write(f"{png(2, 2).hex()} {slow_image().hex()}")
        parent.stdin.close()
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        if way != "exit":
            parent.send_signal(signal.Signals[way])
    assert pids
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody but root may look into a worker")
def test_workers_load_neither_torch_nor_credentials(pool: CodecPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-pass-on")
    with CodecPool(1) as fresh:
        fresh.decode(png(2, 2)).result(timeout=PATIENCE)
        (pid,) = fresh.worker_pids()
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
        assert b"do-not-pass-on" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_workers_start_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one whose files are named like modules that a worker imports."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    with CodecPool(1) as pool:
        assert pool.decode(png(2, 2)).result(timeout=PATIENCE).pixels.shape == (2, 2, 3)


def test_workers_that_cannot_start_are_no_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with CodecPool(1) as pool, pytest.raises(PipelineError, match="does not start") as caught:
        pool.decode(png(2, 2)).result(timeout=PATIENCE)
    assert not isinstance(caught.value, ImageError)


def test_many_threads_share_a_pool(pool: CodecPool) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for size in range(1, 30):
            file = png(size, seed + 1, seed)
            if not np.array_equal(pool.decode(file).result(timeout=PATIENCE).pixels, decode(file, 10**6).pixels):
                wrong.append(size)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_descriptor_is_left_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with CodecPool(1) as pool:
            pool.decode(png(2, 2)).result(timeout=PATIENCE)
            os.kill(pool.worker_pids()[0], signal.SIGKILL)
            pool.decode(png(2, 2)).result(timeout=PATIENCE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pool_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        CodecPool(0)
