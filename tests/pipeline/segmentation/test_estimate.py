"""`fcn segment --dry-run`: exact where it can be, honest where it is a guess, and it writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.actors.cluster import NodeResources, count_fitting
from pipeline.cli.app import run as fcn
from pipeline.errors import InputError
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.results import ResultRow, commit_shard
from pipeline.report.make import pictures_shown
from pipeline.segmentation.estimate import ONCE, PROBED, REPORT, Requests, count_requests, estimate
from pipeline.segmentation.prepare import check_inputs, resolve
from pipeline.segmentation.prices import Prices, cost_of, read_prices
from pipeline.segmentation.selection import SelectionCounts
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.faulty_s3 import FaultyS3
from tests.samples import fill, jpeg

TABLE: dict[str, Any] = {
    "dated": "2001-01",
    "currency": "XTS",
    "requests": {"get": 1.0, "put": 10.0, "list": 100.0},
    "storage": {"gb_month": 2.0},
    "machines": [
        {"kind": "small", "cpus": 2, "hour": 3.0},
        {"kind": "large", "cpus": 8, "hour": 10.0},
        {"kind": "gpu", "cpus": 8, "gpus": 2, "hour": 50.0},
    ],
}


def job_for(source: str, output: str, model: Path, **changes: Any) -> SegmentJob:
    options = {
        "source": source, "output": output, "model": str(model), "device": "cpu", "precision": "float32",
        "engine": "torch", "actors": 2, "cpus_per_actor": 1, "codec_workers": 1, "shard_size": 5,
    }  # fmt: skip
    return SegmentJob.model_validate(options | changes)


def mark_done(job: SegmentJob, keys: set[str]) -> None:
    """Committed rows, as of a run, for some of the images."""
    inputs = check_inputs(job, writes=False)
    recipe = resolve(job, inputs).recipe
    rows = [
        ResultRow(info.key, info.etag, info.size, info.last_modified, "error", recipe.model_id, recipe.params_id,
                  error="truncated", message="half of it is missing")
        for info in inputs.source.list() if info.key in keys
    ]  # fmt: skip
    commit_shard(inputs.output, "20260101T000000Z-aaaa", 0, rows)


def test_what_would_be_done_is_counted_exactly_and_nothing_is_written(
    s3_endpoint: str, bucket: str, model_dir: Path
) -> None:
    photos = open_store(f"s3://{bucket}/photos")
    for index in range(14):
        photos.put(f"{index:02d}.jpg", jpeg(48, 32, seed=index))
    photos.put("notes.txt", b"no image by its name")
    sizes = {info.key: info.size for info in photos.list()}
    with FaultyS3(s3_endpoint) as proxy:
        job = job_for(
            *(f"s3://{bucket}/{folder}?endpoint_url={proxy.endpoint}" for folder in ("photos", "labels")), model_dir
        )
        mark_done(job, {"03.jpg", "04.jpg"})
        before = everything(open_store(f"s3://{bucket}"))
        proxy.requests.clear()
        found = estimate(job)
        assert {method for method, _ in proxy.requests} <= {"GET", "HEAD"}
    assert everything(open_store(f"s3://{bucket}")) == before
    chosen = found.selection
    assert (chosen.listed, chosen.left_out, chosen.done, chosen.selected) == (15, 1, 2, 12)
    assert chosen.selected_bytes == sum(
        size for key, size in sizes.items() if key not in ("notes.txt", "03.jpg", "04.jpg")
    )
    assert (found.shards, found.shard_size, found.actors) == (3, 5, 2)
    assert found.probe is not None
    assert (found.probe.images, found.probe.failed) == (PROBED, 0)
    assert found.written_bytes is not None
    assert found.written_bytes > 12 * found.probe.mask_bytes > 0
    assert found.images_per_second is not None
    assert found.seconds == pytest.approx(12 / found.images_per_second)
    shown, pictures = pictures_shown(12, compared=False)
    assert found.requests.get == ONCE.get + REPORT.get + 12 + 3 + pictures
    assert found.written_bytes > shown * found.probe.picture_bytes > 0


def everything(store: Store) -> dict[str, str]:
    return {info.key: info.etag for info in store.list()}


def test_an_output_that_is_not_there_is_not_made(model_dir: Path, tmp_path: Path) -> None:
    fill(tmp_path / "photos", 3, size=(48, 32))
    (tmp_path / "photos" / "bad.jpg").write_bytes(jpeg(48, 32)[:200])
    found = estimate(job_for(str(tmp_path / "photos"), str(tmp_path / "labels"), model_dir))
    assert not (tmp_path / "labels").exists()
    assert found.probe is not None
    assert (found.images, found.probe.images, found.probe.failed) == (4, 4, 1)


def test_the_command_prints_it_for_people_and_as_json(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "photos", 3, size=(48, 32))
    command = ["segment", str(tmp_path / "photos"), str(tmp_path / "labels"), "--model", str(model_dir), "--dry-run",
               "--device", "cpu", "--cpus-per-actor", "1"]  # fmt: skip
    assert fcn([*command, "--json", "--masks", "tar"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["shards"], told["masks"]) == (3, 1, "tar")
    assert told["requests"]["put"] >= 3
    assert fcn(command) == 0
    text = capsys.readouterr().out
    for word in ("3 of 3 listed", "GET", "ms each", "USD a month", "nothing was written"):
        assert word in text
    assert not (tmp_path / "labels").exists()
    assert fcn([*command[:5], "--prices", "mine.toml"]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_packed_masks_are_one_put_a_shard() -> None:
    counts = SelectionCounts(listed=10_000, selected=10_000)
    job = SegmentJob(source="a", output="b", model="c")
    _, pictures = pictures_shown(10_000, compared=False)
    asked = ONCE + REPORT + Requests(10_020 + pictures, 10_000 + 40 + 1, 10 + 20 + 2 + 1)
    assert count_requests(job, counts, 20, 0.0) == asked
    packed = job.model_copy(update={"masks": "tar", "no_report": True})
    assert count_requests(packed, counts, 20, 0.0) == ONCE + Requests(10_000, 20 + 40 + 1, 10 + 20 + 2)
    slow, quick = count_requests(packed, counts, 20, 100.0), count_requests(packed, counts, 20, 0.0)
    assert slow.put - quick.put == 20 + 10, "progress every 5 seconds, the lease's heartbeat every 10"
    assert slow.list - quick.list == 10


def test_five_actors_of_a_fifth_of_a_gpu_fit_one_machine() -> None:
    (*_, gpu) = Prices.model_validate(TABLE).machines
    assert gpu.actors(0.2, 0.2) == 10
    assert [count_fitting([NodeResources(100, 1)], 1, share) for share in (0.1, 0.2, 0.3, 0.7, 1)] == [10, 5, 3, 1, 1]


def test_costs_add_up_on_the_cheapest_machines_that_fit() -> None:
    prices = Prices.model_validate(TABLE)
    requests = {"get": 2000, "put": 500, "list": 10}
    cost = cost_of(prices, requests, 3_000_000_000, 7200.0, 5, 2.0, 0.0)
    assert cost.requests == 2 * 1.0 + 0.5 * 10.0 + 0.01 * 100.0
    assert cost.storage_month == 6.0
    assert (cost.machine_kind, cost.machine_count, cost.machines) == ("small", 5, 2 * 5 * 3.0)
    eight = cost_of(prices, requests, 0, 7200.0, 8, 2.0, 0.0)
    assert (eight.machine_kind, eight.machine_count, eight.machines) == ("large", 2, 2 * 2 * 10.0)
    on_gpus = cost_of(prices, requests, 0, 3600.0, 3, 1.0, 1.0)
    assert (on_gpus.machine_kind, on_gpus.machine_count, on_gpus.once) == ("gpu", 2, 8.0 + 100.0)
    assert cost_of(prices, requests, 0, 3600.0, 1, 64.0, 0.0).once is None
    assert cost_of(prices, requests, 0, None, 1, 1.0, 0.0).machines is None


def test_the_prices_that_come_along_can_be_read_and_say_when_they_were_true() -> None:
    prices = read_prices()
    assert prices.dated
    assert any(machine.gpus for machine in prices.machines)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dated = ", "not TOML"),
        ('dated = "2001"\n', "requests"),
        ("{good}[extra]\n", "extra"),
        ("{good}\n[[machines]]\nkind = 'x'\ncpus = 0\nhour = 1\n", "machines.1.cpus"),
        ("{negative}", "requests.get"),
    ],
)
def test_a_price_table_that_cannot_be_is_named(text: str, named: str, tmp_path: Path) -> None:
    good = (
        "dated = '2001-01'\ncurrency = 'XTS'\nrequests = {get = 1, put = 1, list = 1}\nstorage = {gb_month = 1}\n"
        "[[machines]]\nkind = 'small'\ncpus = 1\nhour = 1\n"
    )
    path = tmp_path / "mine.toml"
    path.write_text(good)
    assert read_prices(path).currency == "XTS"
    path.write_text(text.replace("{good}", good).replace("{negative}", good.replace("get = 1", "get = -1")))
    with pytest.raises(InputError, match=named) as error:
        read_prices(path)
    assert "mine.toml" in str(error.value)
    with pytest.raises(InputError, match=r"gone\.toml"):
        read_prices(tmp_path / "gone.toml")
