"""Seeds: one in `make test`, five in `make test-all`, FCN_FAULT_SEEDS of them in `make test-faults`, or the one in
FCN_FAULT_SEED.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.segmentation.job import segment
from tests.containers import fill_all_kinds
from tests.faults.harness import IMAGE_SIZE, IMAGES, files_of, small_job


def seeds() -> Sequence[object]:
    if "FCN_FAULT_SEED" in os.environ:
        return [int(os.environ["FCN_FAULT_SEED"])]
    if "FCN_FAULT_SEEDS" in os.environ:
        return range(int(os.environ["FCN_FAULT_SEEDS"]))
    return [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 5))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", seeds())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    callspec = getattr(item, "callspec", None)
    if report.failed and callspec is not None and "seed" in callspec.params:
        name = item.nodeid.partition("[")[0]
        replay = f"FCN_FAULT_SEED={callspec.params['seed']} .venv/bin/python -m pytest '{name}'"
        report.sections.append(("how to replay this seed", replay))
    return report


@dataclass(frozen=True)
class Site:
    """Images, loose, in a tar and in a Parquet file; a model, and what an undisturbed run makes of them."""

    source: Path
    model: Path
    calm: dict[str, bytes]


@pytest.fixture(scope="package")
def site(ray_cluster: None, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The undisturbed run, made once."""
    folder = tmp_path_factory.mktemp("faults")
    fill_all_kinds(folder / "photos", IMAGES, IMAGE_SIZE)
    report = segment(small_job(folder / "photos", folder / "calm", model_dir, actors=1))
    assert (report.counts.ok, report.counts.errors) == (IMAGES, {})
    return Site(folder / "photos", model_dir, files_of(folder / "calm"))
