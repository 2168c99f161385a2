"""deploy/iam: each role's work is done on a server that allows what its policies say, and nothing else.

So a policy that lacks something fails here, and so does one that allows what nobody needs.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
import torch

from fcn_core import ModelBundle
from pipeline.errors import AccessDenied, InputError, ObjectMissing
from pipeline.jobs.segment import SegmentJob
from pipeline.models.registry import open_registry
from pipeline.outputs.gc import collect
from pipeline.outputs.mask_formats import mask_formats
from pipeline.outputs.plan import write_plan
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from pipeline.training.records import Checkpoint
from pipeline.training.store import TrainStore
from tests.deploy.policies import FOLDER, Call, GuardedS3, Permission, permissions
from tests.in_process import segment_in_process
from tests.labellings import write_run
from tests.samples import jpeg, model

pytestmark = pytest.mark.skipif("FCN_TEST_S3_ENDPOINT" in os.environ, reason="the server with policies is moto's")

ROLES = {
    "label": ("source-read", "output-label", "registry-read"),
    "train": ("source-read", "output-train"),
    "clean": ("output-clean",),
    "publish": ("registry-publish",),
    "promote": ("registry-promote",),
}

ONLY_WHEN_CUT_OFF = "s3:AbortMultipartUpload"
"""What is called only to clean up after an upload that broke off half-way."""


@pytest.mark.parametrize("policy", ["output-label", "output-clean"])
def test_every_format_of_masks_has_a_folder_that_the_policies_allow(policy: str) -> None:
    places = {"OUTPUT_BUCKET": "bucket", "OUTPUT_PREFIX": "labels"}
    action = {"output-label": "s3:PutObject", "output-clean": "s3:DeleteObject"}[policy]
    created = (("s3:if-none-match", "*"),)
    for each in mask_formats():
        call = Call(action, f"arn:aws:s3:::bucket/labels/{each.folder}/01234567/x", created)
        assert any(found.allows(call) for found in permissions(policy, places)), each.folder


@pytest.fixture
def places(s3_endpoint: str) -> dict[str, str]:
    """Three new buckets, and where in them things are: what to put into the policies."""
    found = {}
    for place in ("SOURCE", "OUTPUT", "REGISTRY"):
        found[f"{place}_BUCKET"] = f"{place.lower()}-{uuid.uuid4().hex[:12]}"
        found[f"{place}_PREFIX"] = f"{place.lower()}s/2026"
        boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=found[f"{place}_BUCKET"])
    return found


def uri(places: dict[str, str], place: str, endpoint: str) -> str:
    return f"s3://{places[f'{place}_BUCKET']}/{places[f'{place}_PREFIX']}?endpoint_url={endpoint}"


@pytest.fixture
def role(request: pytest.FixtureRequest, places: dict[str, str]) -> Iterator[GuardedS3]:
    """A server for who has one role."""
    with GuardedS3([found for policy in ROLES[request.param] for found in permissions(policy, places)]) as s3:
        yield s3


def acting_as(name: str) -> pytest.MarkDecorator:
    """Have `role` be this one."""
    return pytest.mark.parametrize("role", [name], indirect=True)


def idle(s3: GuardedS3) -> list[Permission]:
    """The permissions that could go: nothing was asked that they alone allow."""
    found = []
    for permission in s3.allowed:
        others = [other for other in s3.allowed if other != permission]
        needed = (c for c in s3.calls if permission.allows(c) and not any(other.allows(c) for other in others))
        if permission.action != ONLY_WHEN_CUT_OFF and next(needed, None) is None:
            found.append(permission)
    return found


def keep_versions(places: dict[str, str], place: str, endpoint: str) -> None:
    """From now on the bucket keeps versions."""
    boto3.client("s3", endpoint_url=endpoint).put_bucket_versioning(
        Bucket=places[f"{place}_BUCKET"], VersioningConfiguration={"Status": "Enabled"}
    )


@pytest.fixture
def bundle() -> ModelBundle:
    return model()


@acting_as("label")
def test_labelling_is_allowed_what_it_does_and_no_more(
    role: GuardedS3, places: dict[str, str], s3_endpoint: str, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)  # the server is asked the same, whichever process asks
    source = open_store(uri(places, "SOURCE", s3_endpoint))
    for index in range(3):
        source.put(f"{index}.jpg", jpeg(48, 32, seed=index))
    registry = open_registry(uri(places, "REGISTRY", s3_endpoint))
    registry.promote("street", registry.publish("street", bundle), "the first")
    output = uri(places, "OUTPUT", role.endpoint)
    job = SegmentJob(
        source=uri(places, "SOURCE", role.endpoint),
        output=output,
        model="registry:street@champion",
        registry=uri(places, "REGISTRY", role.endpoint),
        actors=1,
        cpus_per_actor=1,
        device="cpu",
    )
    report = segment(job)
    assert report.counts.ok == 3
    source.put("new.jpg", jpeg(48, 32, seed=3))
    assert segment(job.model_copy(update={"masks": "tar"})).counts.ok == 1
    keep_versions(places, "OUTPUT", s3_endpoint)
    open_store(output).check_writable()
    assert role.denied == []
    assert idle(role) == []


@acting_as("label")
def test_labelling_may_neither_touch_its_source_nor_undo_its_commits_nor_publish(
    role: GuardedS3, places: dict[str, str], bundle: ModelBundle
) -> None:
    source, output = (open_store(uri(places, place, role.endpoint)) for place in ("SOURCE", "OUTPUT"))
    with pytest.raises(AccessDenied):
        source.put("0.jpg", b"")
    with pytest.raises(AccessDenied):
        source.delete("0.jpg")
    output.create("results/run_id=20260101T000000Z-aaaa/shard-00000000.parquet", b"first")
    with pytest.raises(AccessDenied):
        output.put("results/run_id=20260101T000000Z-aaaa/shard-00000000.parquet", b"second")
    with pytest.raises(AccessDenied):
        output.delete("results/run_id=20260101T000000Z-aaaa/shard-00000000.parquet")
    assert output.get("results/run_id=20260101T000000Z-aaaa/shard-00000000.parquet") == b"first"
    with pytest.raises(InputError, match="registry cannot be written"):
        open_registry(uri(places, "REGISTRY", role.endpoint)).publish("street", bundle)


@acting_as("label")
def test_what_is_missing_is_told_as_missing(role: GuardedS3, places: dict[str, str]) -> None:
    """S3 says 403 for it to who may not list the whole bucket, and a first run would take that for a refusal."""
    with pytest.raises(ObjectMissing):
        open_store(uri(places, "OUTPUT", role.endpoint)).get("runs/1/run.json")
    role.allowed = [permission for permission in role.allowed if permission.action != "s3:ListBucket"]
    with pytest.raises(AccessDenied):
        open_store(uri(places, "OUTPUT", role.endpoint)).get("runs/1/run.json")


@acting_as("train")
def test_training_is_allowed_what_it_does_and_no_more(
    role: GuardedS3, places: dict[str, str], s3_endpoint: str, bundle: ModelBundle
) -> None:
    open_store(uri(places, "SOURCE", s3_endpoint)).put("0.jpg", jpeg(48, 32))
    source, output = (open_store(uri(places, place, role.endpoint)) for place in ("SOURCE", "OUTPUT"))
    assert [source.get(info.key) for info in source.list()]
    output.check_writable()
    store = TrainStore(output.at("street"))
    store.save_start(bundle)
    # Large enough to be sent in parts, and one more than are kept.
    weights = torch.zeros(1_500_000)
    for step in (1, 2, 3):
        store.save_checkpoint(Checkpoint(step=step, loop={"weights": weights}))
    assert store.checkpoint_steps() == [2, 3]
    assert store.newest_checkpoint() is not None
    keep_versions(places, "OUTPUT", s3_endpoint)
    output.check_writable()
    assert role.denied == []
    assert idle(role) == []


@acting_as("clean")
def test_cleaning_up_is_allowed_what_it_does_and_no_more_and_never_touches_commits(
    role: GuardedS3, places: dict[str, str], s3_endpoint: str
) -> None:
    everybodys = open_store(uri(places, "OUTPUT", s3_endpoint))
    everybodys.put("class_areas/run_id=20260101T000000Z-aaaa/shard-00000000.parquet", b"without results")
    recipe = write_run(everybodys, "20260102T000000Z-aaaa", {})
    write_plan(everybodys, "20260102T000000Z-aaaa", [], 1)
    everybodys.put(f"masks/{recipe}/a.jpg.00000000.png", b"of no row")
    output = open_store(uri(places, "OUTPUT", role.endpoint))
    # The first one's lease is what the second one finds left over.
    found = [collect(output, timedelta(0), delete=True).kinds for _ in range(2)]
    assert [set(kinds) for kinds in found] == [{"masks", "class_areas"}, {"leases"}]
    keep_versions(places, "OUTPUT", s3_endpoint)
    output.check_writable()
    assert role.denied == []
    assert idle(role) == []
    with pytest.raises(AccessDenied):
        output.delete("results/run_id=20260101T000000Z-aaaa/shard-00000000.parquet")


@acting_as("publish")
def test_publishing_is_allowed_what_it_does_and_no_more(
    role: GuardedS3, places: dict[str, str], s3_endpoint: str, bundle: ModelBundle
) -> None:
    registry = open_registry(uri(places, "REGISTRY", role.endpoint))
    version = registry.publish("street", bundle)
    keep_versions(places, "REGISTRY", s3_endpoint)
    registry.publish("street", model(seed=1))
    assert registry.publish("street", bundle) == version, "once more, and it is there"
    assert role.denied == []
    assert idle(role) == []
    with pytest.raises(AccessDenied):
        registry.promote("street", version, "published is not promoted")
    assert registry.champion("street") is None


@acting_as("promote")
def test_promoting_is_allowed_what_it_does_and_no_more(
    role: GuardedS3, places: dict[str, str], s3_endpoint: str, bundle: ModelBundle
) -> None:
    version = open_registry(uri(places, "REGISTRY", s3_endpoint)).publish("street", bundle)
    registry = open_registry(uri(places, "REGISTRY", role.endpoint))
    registry.promote("street", version, "better")
    keep_versions(places, "REGISTRY", s3_endpoint)
    registry.promote("street", version, "better still")
    assert role.denied == []
    assert idle(role) == []
    with pytest.raises(InputError, match="registry cannot be written"):
        registry.publish("street", bundle)


def test_every_policy_belongs_to_a_role() -> None:
    named = {policy for policies in ROLES.values() for policy in policies}
    assert named == {path.stem for path in Path(FOLDER).glob("*.json")}


@acting_as("promote")
def test_a_permission_too_many_is_noticed(role: GuardedS3, places: dict[str, str]) -> None:
    more = replace(role.allowed[0], action="s3:GetBucketPolicy")
    role.allowed.append(more)
    assert more in idle(role)
