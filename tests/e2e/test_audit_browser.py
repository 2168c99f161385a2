"""The page of an audit in a real browser, on a phone and on a wide screen."""

from pathlib import Path

from pipeline.audit.job import AuditJob, run_audit
from pipeline.audit.plan import PlanOptions, plan_audit
from pipeline.storage.opening import open_store
from tests.browser import browse
from tests.pipeline.audit.sites import make_site
from tests.pipeline.audit.test_audit import drawn_keys


def test_the_page_fits_phones_and_screens_and_loads_nothing(tmp_path: Path) -> None:
    with browse(tmp_path / "profile") as page:
        site = make_site(tmp_path)
        audit = open_store(str(tmp_path / "audit"))
        plan_audit(site.output, audit, PlanOptions(40, by="folder"))
        run_audit(AuditJob(audit=audit.uri, annotations=site.annotate(drawn_keys(audit)[1:]).uri))
        file = tmp_path / "audit/index.html"
        for width in (400, 1600):
            page.resize(width)
            page.open(file)
            assert page.overflow() == 0
            assert page.complaints() == []
            assert page.requests() == [file.as_uri()]
        assert len(page.all("svg.plot .interval")) == 5 * 4, "the whole and four folders, of four classes each"
        assert len(page.all("#calibration-chart .estimate")) == 5
        assert "not annotated" in page.one("#not-used ~ div").text
