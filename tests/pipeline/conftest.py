"""The tests of this folder share codec workers, but for those of the codec itself."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def kept_codec_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.parent.name == "codec":
        yield
        return
    from tests.kept_codecs import keep_codec_workers

    with pytest.MonkeyPatch.context() as patch:
        keep_codec_workers(patch)
        yield
