"""What travels to where a job runs."""

import pytest

from pipeline.errors import InputError
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from pipeline.launch.work import Work

PLACES = {"source": "/data/photos", "output": "s3://labels", "model": "registry:street@champion"}


@pytest.mark.parametrize("option", ["source", "output", "model", "registry", "key_list"])
def test_a_relative_path_is_refused_by_name(option: str) -> None:
    Work.of(SegmentJob.model_validate(PLACES))
    with pytest.raises(InputError, match=rf"{option} is the relative path 'here/it/is'.*; give a URI"):
        Work.of(SegmentJob.model_validate(PLACES | {option: "here/it/is"}))


def test_a_retraining_travels_as_the_training_that_it_is() -> None:
    training = {"name": "street-1", "output": "s3://training", "dataset": "s3://streets", "workers": 2}
    job = RetrainJob.model_validate(training | {"registry_name": "street", "margin": 0.1})
    assert Work.of(job).job() == TrainJob.model_validate(training)
    assert Work.of(job) == Work.of(TrainJob.model_validate(training))


def test_a_job_without_an_output_is_refused_for_its_outcome_would_be_lost() -> None:
    with pytest.raises(InputError, match="set `output`"):
        Work.of(EvaluateJob(model="s3://models/street", dataset="s3://streets"))
