"""A real Prefect server for all tests of flows, on a database of its own."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.prefect_site import PrefectServer


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[PrefectServer]":
    from tests import prefect_site

    with prefect_site.prefect_server(tmp_path_factory.mktemp("prefect-server")) as server:
        yield server
