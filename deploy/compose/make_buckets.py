"""Make the buckets that are named, on the S3 server of the environment; those that are there stay as they are."""

import sys

import boto3
from botocore.exceptions import ClientError

client = boto3.client("s3")
for name in sys.argv[1:]:
    try:
        client.create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
