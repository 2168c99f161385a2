"""A real Prefect server for all tests of flows, on a database of its own.

It ends with the last of them: beside other tests it would go on looking for what to do.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.prefect_site import PrefectServer


@pytest.fixture(scope="package")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[PrefectServer]":
    from tests import prefect_site

    with prefect_site.prefect_server(tmp_path_factory.mktemp("prefect-server")) as server:
        yield server
