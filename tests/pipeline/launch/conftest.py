"""One standing cluster for a file of tests."""

from collections.abc import Iterator

import pytest

from tests.standing_ray import standing_ray


@pytest.fixture(scope="module")
def standing_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of its dashboard. This process's environment has its token."""
    with standing_ray(tmp_path_factory.mktemp("ray")) as dashboard:
        yield dashboard
