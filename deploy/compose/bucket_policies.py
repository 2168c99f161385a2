"""Say who may do what in each bucket of the site: deploy/iam's policies, for a key per service.

The S3 server here takes policies of buckets, not of users, and knows no conditions. So what AWS would refuse, a commit
written without `If-None-Match`, is not refused; all else is as deploy/iam says.
"""

import json
import os
from pathlib import Path
from typing import Any

import boto3

IAM = Path(os.environ.get("FCN_IAM_POLICIES", "/site/iam"))
RAY, PREFECT = "ray", "prefect"

# By bucket and service. Objects are one folder down, as in s3://cameras/2026; models are in s3://models/registry.
POLICIES = {
    "cameras": {RAY: ("source-read",), PREFECT: ("source-read",)},
    "labels": {RAY: ("output-label",), PREFECT: ("output-label",)},
    "trainings": {RAY: ("output-train",), PREFECT: ("output-train",)},
    "models": {RAY: ("registry-read",), PREFECT: ("registry-read", "registry-publish", "registry-promote")},
}


def statements(bucket: str, policy: str, key: str) -> list[dict[str, Any]]:
    """The statements of deploy/iam's `policy` on `bucket`, for the service that has the access key `key`."""
    text = (IAM / f"{policy}.json").read_text()
    for kind in ("SOURCE", "OUTPUT", "REGISTRY"):
        text = text.replace(f"{kind}_BUCKET", bucket).replace(
            f"{kind}_PREFIX", "registry" if kind == "REGISTRY" else "*"
        )
    found = json.loads(text)["Statement"]
    return [
        {"Effect": one["Effect"], "Principal": {"AWS": [key]}, "Action": one["Action"], "Resource": one["Resource"]}
        for one in found
    ]


def main() -> None:
    client = boto3.client("s3")
    keys = {RAY: os.environ["S3_RAY_ACCESS_KEY"], PREFECT: os.environ["S3_PREFECT_ACCESS_KEY"]}
    for bucket, services in POLICIES.items():
        allowed = [
            statement
            for service, policies in services.items()
            for policy in policies
            for statement in statements(bucket, policy, keys[service])
        ]
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": allowed}))


if __name__ == "__main__":
    main()
