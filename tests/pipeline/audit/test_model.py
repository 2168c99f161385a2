"""What an audit has to do with the model whose masks it audits: what that was trained on, and its promotion."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core import ModelBundle
from fcn_core.trained_on import TrainedOn, pixel_digest
from pipeline.audit.estimate import Estimate
from pipeline.audit.files import read_waves
from pipeline.audit.job import AuditJob, run_audit
from pipeline.audit.plan import PlanOptions, plan_audit
from pipeline.cli.app import run as fcn
from pipeline.models.registry import open_registry
from pipeline.storage.opening import open_store
from tests.commands import refused
from tests.pipeline.audit.sites import Site, make_site
from tests.samples import model


def site_of(root: Path, bundle: ModelBundle) -> Site:
    """An output that `bundle` is said to have made."""
    bundle.save(root / "model")
    return make_site(root, model={"model": str(root / "model"), "model_id": bundle.model_id})


def estimated(site: Site, after_plan: Callable[[list[str]], None] = lambda keys: None) -> Estimate:
    audit = open_store(str(site.root / "audit"))
    plan_audit(site.output, audit, PlanOptions(40))
    keys = [key for _, sample in read_waves(audit) for key in sample["key"].to_pylist()]
    after_plan(keys)
    return run_audit(AuditJob(audit=audit.uri, annotations=site.annotate(keys).uri))


def pixels(site: Site, key: str) -> bytes:
    return pixel_digest(np.asarray(Image.open(site.root / "photos" / key).convert("RGB")))


def notes_of(found: Estimate) -> str:
    return "; ".join(found.notes)


def test_images_of_the_sample_that_the_model_records_as_trained_on_are_counted(tmp_path: Path) -> None:
    site = site_of(tmp_path, model())

    def train_on_three(keys: list[str]) -> None:
        undrawn = next(key for key in site.truth if key not in keys)
        seen = TrainedOn.of(pixels(site, key) for key in (*keys[:3], undrawn))
        replace(model(), trained_on=seen).save(site.root / "model", overwrite=True)

    assert "trained on 3 of 40 images drawn" in notes_of(estimated(site, train_on_three))


def test_a_model_that_saw_other_images_or_is_gone_or_another_is_no_note(tmp_path: Path) -> None:
    unseen = replace(model(), trained_on=TrainedOn.of([b"12345678"]))
    site = site_of(tmp_path / "other-images", unseen)
    assert "trained on" not in notes_of(estimated(site))
    site = site_of(tmp_path / "gone", model())
    assert "trained on" not in notes_of(estimated(site, lambda keys: (site.root / "model/model.json").unlink()))
    replaced = site_of(tmp_path / "another", model())

    def replace_model(keys: list[str]) -> None:
        seen = TrainedOn.of(pixels(replaced, key) for key in keys)
        replace(model(seed=1), trained_on=seen).save(replaced.root / "model", overwrite=True)

    assert "trained on" not in notes_of(estimated(replaced, replace_model))


def test_a_model_is_promoted_only_if_its_audit_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, other = model(), model(seed=1)
    site = site_of(tmp_path, bundle)
    home = tmp_path / "registry"
    home.mkdir()
    registry = open_registry(str(home))
    for each in (bundle, other):
        registry.publish("road", each)
    promote = ["registry", "promote", "road", bundle.model_id, "--reason", "audited", "--registry", str(home)]
    audit = ["--audit", str(tmp_path / "audit")]
    plan_audit(site.output, open_store(audit[1]), PlanOptions(40))
    assert "no estimate yet" in refused(capsys, *promote, *audit, "--fail-bias", "0.5")
    keys = [key for _, sample in read_waves(open_store(audit[1])) for key in sample["key"].to_pylist()]
    run_audit(AuditJob(audit=audit[1], annotations=site.annotate(keys).uri))
    assert "decides nothing by itself" in refused(capsys, *promote, *audit)
    assert "name it with --audit" in refused(capsys, *promote, "--fail-bias", "0.5")
    of_other = [other.model_id if word == bundle.model_id else word for word in promote]
    assert f"audits masks of model {bundle.model_id}" in refused(capsys, *of_other, *audit, "--fail-bias", "0.5")
    assert fcn([*promote, *audit, "--fail-bias", "0.01"]) == 3
    assert "not promoted: audit" in capsys.readouterr().err
    assert registry.champion("road") is None
    assert fcn([*promote, *audit, "--fail-bias", "0.5", "--fail-width", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == bundle.model_id
