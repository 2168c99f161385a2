"""The audit flow on a real Prefect server: it shows what the classes really cover, and its gate fails it."""

from pathlib import Path

import pytest

from flows.audit import audit
from pipeline.audit.gate import AuditFailed
from pipeline.audit.job import AuditJob
from pipeline.audit.plan import PlanOptions, plan_audit
from pipeline.storage.opening import open_store
from tests.flows.reading import first_line, last_run, tasks_of
from tests.pipeline.audit.sites import make_site
from tests.pipeline.audit.test_audit import drawn_keys

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]


def test_the_flow_shows_the_estimate_and_fails_by_its_gate(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    place = open_store(str(tmp_path / "audit"))
    plan_audit(site.output, place, PlanOptions(40))
    job = AuditJob(audit=place.uri, annotations=site.annotate(drawn_keys(place)).uri)
    summary = audit(job)
    assert summary.annotated == 40
    run, artifacts = last_run("audit")
    assert tasks_of(run) == ["estimate", "publish"]
    assert "pole" in str(artifacts["audit"].data)
    assert "Pixel accuracy" in str(artifacts["audit-summary"].data)
    with pytest.raises(AuditFailed, match="the model is off by"):
        audit(job.model_copy(update={"fail_bias": 0.001}))
    run, artifacts = last_run("audit")
    assert run.state
    assert run.state.is_failed()
    assert "the model is off by" in first_line(run)
    assert "pole" in str(artifacts["audit"].data), "what failed it is shown all the same"
