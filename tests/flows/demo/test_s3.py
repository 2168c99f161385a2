"""The demo's own S3 server: there while it is needed, and nothing of it left afterwards."""

import os

import boto3
import pytest
from botocore.exceptions import ConnectionError as NotConnected

from flows.demo.s3 import local_s3


def test_a_server_is_there_inside_and_gone_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "my-own-account")
    before = dict(os.environ)
    with local_s3() as endpoint:
        assert os.environ["AWS_ENDPOINT_URL"] == endpoint
        assert "AWS_PROFILE" not in os.environ
        client = boto3.Session().client("s3")
        client.create_bucket(Bucket="here")
        assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["here"]
    assert dict(os.environ) == before
    with pytest.raises(NotConnected):
        client.list_buckets()


def test_it_ends_with_an_error_too() -> None:
    def fail_inside() -> None:
        with local_s3() as endpoint:
            endpoints.append(endpoint)
            raise ZeroDivisionError

    endpoints: list[str] = []
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    keys = {"aws_access_key_id": "demo", "aws_secret_access_key": "demo", "region_name": "us-east-1"}
    with pytest.raises(NotConnected):
        boto3.client("s3", endpoint_url=endpoints[0], **keys).list_buckets()
