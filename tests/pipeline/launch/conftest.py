"""One standing cluster for a file of tests; its jobs reach S3 through a proxy that can keep requests waiting."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import pytest
from ray.job_submission import JobDetails, JobSubmissionClient

from tests.faulty_s3 import FaultyS3
from tests.standing_ray import standing_ray


@dataclass(frozen=True)
class Cluster:
    """`address`: the URL of its dashboard. This process's environment has its token."""

    address: str
    storage: FaultyS3
    bucket: str

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def jobs(self) -> dict[str, JobDetails]:
        """All jobs by their submission id."""
        client = JobSubmissionClient(self.address, headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
        return {job.submission_id: job for job in client.list_jobs() if job.submission_id}


@pytest.fixture(scope="module")
def standing_cluster(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    bucket = f"launch-{os.urandom(8).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    with FaultyS3(s3_endpoint) as storage, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", storage.endpoint)
        with standing_ray(tmp_path_factory.mktemp("ray"), cpus=1) as address:
            yield Cluster(address, storage, bucket)
