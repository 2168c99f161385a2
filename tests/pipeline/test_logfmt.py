"""A log line can be taken apart again, whatever is in it, and stays one line."""

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.actors.outcome import ErrorExample, ShardOutcome
from pipeline.cli.console import observe
from pipeline.logfmt import key_values
from tests.log_lines import parse, without_time

OUTCOME = ShardOutcome(
    shard=7,
    images=64,
    ok=61,
    errors={"truncated": 2, "not_an_image": 1},
    examples=(ErrorExample('a "quoted"\nkey\x1b[31m :bug: [red]', "truncated", "The file ends; it = broken."),),
    pixels=1000,
    stage_seconds={"fetch": 1.25, "predict": 0.01234},
    attempt=2,
    seconds=12.5,
)


@given(st.text())
def test_any_text_survives_and_stays_on_its_line(text: str) -> None:
    line = key_values(before=1, text=text, after="x")
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert parse(line) == {"before": "1", "text": text, "after": "x"}


def test_what_is_not_known_is_left_out_and_plain_values_are_bare() -> None:
    line = key_values(run="20260101T000000Z-0a1b", none=None, seconds=12.5, small=0.0123456, zero=0.0, done="7/64")
    assert line == "run=20260101T000000Z-0a1b seconds=12.500 small=0.0123 zero=0.000 done=7/64"


def test_a_shard_is_one_line_with_run_shard_attempt_and_stages() -> None:
    sink = io.StringIO()
    with observe(Console(file=sink, width=40, soft_wrap=True)) as observer:
        observer.phase("checking inputs")
        observer.shard("20260101T000000Z-0a1b", OUTCOME, 64, 640)
    phase, shard, example = (parse(without_time(line)) for line in sink.getvalue().splitlines())
    assert phase == {"phase": "checking inputs"}
    assert shard == {
        "run": "20260101T000000Z-0a1b",
        "shard": "7",
        "attempt": "2",
        "images": "64",
        "ok": "61",
        "errors": "3",
        "reasons": "not_an_image:1,truncated:2",
        "seconds": "12.500",
        "fetch_s": "1.250",
        "predict_s": "0.0123",
        "done": "64/640",
        "current_images_per_s": "0.0",
    }
    assert example["key"] == OUTCOME.examples[0].key
    assert example["message"] == OUTCOME.examples[0].message


def test_a_flow_logs_the_same_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import artifacts

    class Nowhere:
        def update(self, share: float, text: str) -> None: ...

    sink = io.StringIO()
    log = logging.Logger("flow")  # Prefect's own has its handlers
    log.addHandler(logging.StreamHandler(sink))
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: log)
    monkeypatch.setattr(artifacts, "ProgressArtifact", Nowhere)
    artifacts.JobObserver().shard("r1", OUTCOME, 64, 640)
    (line,) = (parse(line) for line in sink.getvalue().splitlines())
    assert {"run": "r1", "shard": "7", "attempt": "2", "errors": "3", "done": "64/640"}.items() <= line.items()
