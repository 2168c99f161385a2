"""The command that a report gives to run again: a shell and `fcn` must make the same job of it."""

import shlex

import pytest

from pipeline.cli.app import app
from pipeline.jobs.segment import SegmentJob
from pipeline.report.rerun import quoted, segment_command

PLACES = {"source": "photos", "output": "labels", "model": "model"}

JOBS = [
    PLACES,
    PLACES | {"source": 'my photos/it\'s "here"', "output": "$(touch x)`y`;&|", "model": "a\\b"},
    PLACES | {"include": ("*.jpg", "night shots/*"), "exclude": ("-odd", "--help"), "limit": 5},
    PLACES | {"precision": "bfloat16", "max_error_rate": 0.25, "retry_errors": True, "batch_size": 3, "device": "cpu"},
    PLACES | {"deterministic": True, "gpus_per_actor": 0.5, "image_timeout": 12.5, "registry": "s3://b/models"},
    PLACES | {"source": "-dash", "output": "s3://b/p?endpoint_url=http://127.0.0.1:9000&region=x", "shard_size": 7},
]


@pytest.mark.parametrize("options", JOBS)
def test_the_command_means_the_same_job(options: dict[str, object]) -> None:
    job = SegmentJob.model_validate(options)
    line = " ".join(quoted(segment_command(job.model_dump(mode="json"))))
    words = shlex.split(line)
    assert words[:2] == ["fcn", "segment"]
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    given = bound.arguments
    again = SegmentJob(source=given["source"], output=given["output"], **given["options"].model_dump())
    assert again == job.model_copy(update={"source": "./-dash"} if job.source == "-dash" else {})


def test_what_was_about_one_call_is_left_out_and_what_is_asked_for_is_added_once() -> None:
    job = SegmentJob(**PLACES, takeover=True, no_report=True, retry_errors=True)
    words = segment_command(job.model_dump(mode="json"), "--retry-errors")
    assert words == ["fcn", "segment", "photos", "labels", "--model", "model", "--retry-errors"]


def test_a_password_in_a_uri_of_an_old_record_is_not_shown() -> None:
    """No job takes such a URI; a record that is older than this rule may have one."""
    job = SegmentJob(**PLACES).model_dump(mode="json") | {
        "source": "s3://b/p?endpoint_url=http://user:secret@host:9000"
    }
    line = " ".join(quoted(segment_command(job)))
    assert "secret" not in line
    assert "http://host:9000" in line
