"""What all tests share: a home folder of their own and a guard, a live line, an S3 endpoint, a Ray, a small model.

The S3 endpoint is moto's server on a free port, or the one that FCN_TEST_S3_ENDPOINT names.
"""

import logging
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.plugins.isolation import Isolation, child_path, isolate

SESSION_FOLDER = isolate()  # before anything else is imported that would look for a home folder

# The networks of the tests are tiny: a second OpenMP thread gains nothing, and on a busy machine it is waited for.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example may take depends on the machine; a failure shows how to repeat it.
settings.register_profile("tests", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.hookimpl(trylast=True)  # pytest-instafail has put its reporter in place
def pytest_configure(config: pytest.Config) -> None:
    if SESSION_FOLDER is not None:
        config.pluginmanager.register(Isolation(SESSION_FOLDER))
    reporter = config.pluginmanager.getplugin("terminalreporter")
    # In the process that runs the tests itself, what it prints would be taken for a test's output.
    if reporter is not None and config.option.verbose == 0 and config.getoption("dist", "no") != "no":
        from tests.plugins.live_line import LiveLine

        config.pluginmanager.register(LiveLine(reporter))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    if config.getoption("dist") != "loadfile":
        return None
    from tests.plugins.scheduling import Scheduling

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A predictor sets PyTorch's threads for the whole process: the next test is to find what this one found."""
    yield
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


FIRST = (
    "flows", "pipeline/launch", "deploy", "e2e", "faults", "pipeline/training", "pipeline/actors", "pipeline/storage",
)  # fmt: skip
"""Folders whose files take longest, longest first. Were they last, one process would end minutes after the other."""


@pytest.hookimpl(trylast=True)  # pytest-randomly has drawn its order, which stays within each of these and the rest
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        place = item.path.relative_to(tests).as_posix()
        return next((rank for rank, folder in enumerate(FIRST) if place.startswith(folder)), len(FIRST))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The endpoint's URL. AWS_* point there for as long as the session lasts, for child processes too.

    With FCN_TEST_S3_ENDPOINT (a Ceph, a MinIO) the credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    are kept.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            if "KEY" not in name or "FCN_TEST_S3_ENDPOINT" not in os.environ:
                patch.delenv(name)
        # Nothing of the developer's own account may leak into the tests, nor the other way round.
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        if "AWS_ACCESS_KEY_ID" not in os.environ:
            patch.setenv("AWS_ACCESS_KEY_ID", "testkey")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
        given = os.environ.get("FCN_TEST_S3_ENDPOINT")
        if given:
            patch.setenv("AWS_ENDPOINT_URL", given)
            yield given
            return
        from moto.server import ThreadedMotoServer

        # A line for every request, and through whatever handlers the last to set up logging has left.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            endpoint = f"http://{host}:{port}"
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            yield endpoint
        finally:
            server.stop()


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """The name of a fresh, empty bucket there."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    import boto3

    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def hasty_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that this process opens give a service up that is not there after half a second, not after ten or more.

    For a service that answers, be it late, this is too little on a busy machine.
    """
    from pipeline.storage import opening
    from pipeline.storage.store import StorageOptions

    monkeypatch.setattr(opening, "USUAL", StorageOptions(connect_seconds=0.5, retry_seconds=0.5, check_seconds=0.5))


@pytest.fixture(scope="session")
def ray_cluster(request: pytest.FixtureRequest, s3_endpoint: str) -> Iterator[None]:
    """A Ray for the session, with more logical CPUs than this machine may have and two GPUs that exist in name only.

    Its actors see the same S3 endpoint as the tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # Else a worker process starts for each of the CPUs, before any test needs one.
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        if any(item.path.match("e2e/test_metrics.py") for item in request.session.items):
            patch.setenv("RAY_metrics_report_interval_ms", "2000")  # not 10 s, which many an actor here does not live
        patch.setenv("PYTHONPATH", child_path())  # actors import what the tests define
        from ray._raylet import Config

        from pipeline.actors.cluster import private_ray

        Config.initialize("")
        with private_ray(num_cpus=8, num_gpus=2, others_join=True):
            yield


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model bundle on disk."""
    from tests.samples import model

    directory = tmp_path_factory.mktemp("models") / "small"
    model().save(directory)
    return directory
