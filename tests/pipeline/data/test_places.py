"""Where a key of a data set leads: below the folder, or by a URI of its own to anywhere."""

import pytest

from pipeline.data.places import KeyResolver
from pipeline.storage.opening import open_store

ROOT = "s3://data/set?region=eu-west-9"


@pytest.mark.parametrize(
    ("key", "store", "name"),
    [
        ("a/b.png", ROOT, "a/b.png"),
        ("a?b=c", ROOT, "a?b=c"),
        ("/photos/a%20b.png", "/photos", "a%20b.png"),
        ("file:///photos/a%20b.png", "/photos", "a b.png"),
        ("s3://other/a/b.png", "s3://other?region=eu-west-9", "a/b.png"),
        ("s3://other/a.png?region=us-east-9", "s3://other?region=us-east-9", "a.png"),
        ("s3://other/a?", "s3://other?region=eu-west-9", "a?"),
        # No object is called "", so these are no options.
        ("s3://other/?region=us-east-9", "s3://other?region=eu-west-9", "?region=us-east-9"),
        ("s3://other/?a=b/c.png", "s3://other?region=eu-west-9", "?a=b/c.png"),
        ("gs://other/a?b=c", "gs://other", "a?b=c"),
    ],
)
def test_a_key_leads_to_one_object(key: str, store: str, name: str) -> None:
    found, called = KeyResolver(open_store(ROOT)).find(key)
    assert (found.uri, called) == (store, name)
