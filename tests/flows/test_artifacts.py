"""What artifacts say of places."""

import pytest

from flows.artifacts import link_to

KEY = "reports/run 1/index.html"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "s3://labels/2026/",
            "[s3://labels/2026/reports/run 1/index.html]"
            "(https://console.aws.amazon.com/s3/object/labels?prefix=2026/reports/run%201/index.html)",
        ),
        (
            "gs://labels",
            "[gs://labels/reports/run 1/index.html]"
            "(https://console.cloud.google.com/storage/browser/_details/labels/reports/run%201/index.html)",
        ),
        ("s3://labels?endpoint_url=https://s3.example.org", "`s3://labels/reports/run 1/index.html`"),
        ("/data/labels", "`/data/labels/reports/run 1/index.html`"),
    ],
)
def test_a_link_is_given_only_where_a_browser_opens_it(output: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(variable, raising=False)
    assert link_to(output, KEY) == said


def test_s3_of_another_service_has_no_page_to_link_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert link_to("s3://labels", KEY) == f"`s3://labels/{KEY}`"
