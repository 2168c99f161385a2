"""deploy/grafana: the dashboard shows every metric there is, and none that there is not; docs/metrics.md lists them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.actors.metrics import METRICS, REASONS
from tests.deploy.dashboard import GRAFANA, dashboard, expressions, labels_asked, panels, rules, selected
from tests.deploy.manifests import ROOT, documents, kustomized, site

EXPORTED = {metric.exported for metric in METRICS}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    assert {name for expression in expressions() for name in selected(expression)} == EXPORTED


def test_alerts_ask_for_metrics_that_there_are() -> None:
    for rule in rules():
        names = selected(rule["expr"])
        assert names
        assert names <= EXPORTED, rule["alert"]


def test_an_expression_that_prometheus_would_refuse_is_noticed() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        selected("sum(rate(ray_fcn_images_total[5m])")


def test_series_are_chosen_by_labels_that_they_have() -> None:
    tags = {metric.exported: {*metric.tags} for metric in METRICS}
    assert not [(name, label) for name, label in labels_asked() if label not in tags[name]]


def test_every_panel_says_what_it_shows_and_in_what() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_panels_do_not_overlap() -> None:
    taken = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_names_do_not_say_twice_what_they_are() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"fcn(_[a-z]+)+", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert "job" not in metric.tags, "Prometheus has a label of that name, and would rename ours"


def test_the_reasons_of_error_rows_are_those_that_the_docs_explain() -> None:
    table = (ROOT / "docs" / "results.md").read_text()
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (?:the |a )", table, re.MULTILINE)
    documented = {reason for cell in cells for reason in re.findall(r"`(\w+)`", cell)}
    assert documented >= {"truncated", "missing"}
    assert documented <= {*REASONS}


def test_kubernetes_has_the_dashboard_where_grafana_looks_for_it() -> None:
    (found,) = kustomized(GRAFANA)
    assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert found["data"] == {"fcn-pipeline.json": (GRAFANA / "fcn-pipeline.json").read_text()}
    assert "fcn-dashboard" in {document["metadata"]["name"] for document in site("cpu")}


def test_prometheus_finds_the_pods_of_ray() -> None:
    (monitor,) = documents((GRAFANA / "pod-monitor.yaml").read_text())
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (cluster,) = (document for document in site("gpu") if document["kind"] == "RayCluster")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    assert len(groups) == 3
    for group in groups:
        about = group["template"]["metadata"]
        assert wanted.items() <= about["labels"].items()
        (container,) = group["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports.keys()
        assert about["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": str(ports["metrics"])}


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed: it comes with Prometheus (apt-get install prometheus)",
)


@needs_promtool
def test_alerts_come_when_they_should_and_not_before() -> None:
    cases = Path(__file__).with_name("alert_cases.yaml")
    done = subprocess.run(["promtool", "test", "rules", cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_expressions_and_the_alerts(tmp_path: Path) -> None:
    asked = [{"record": f"panel:{at}", "expr": text.replace("$kind", ".*")} for at, text in enumerate(expressions())]
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    for file in (tmp_path / "dashboard.yaml", GRAFANA / "alerts.yaml"):
        done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_docs_have_every_metric_and_alert() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    listed = re.findall(r"^\| `(ray_fcn_\w+)` \| (\w+) \| ([\w ]+) \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    assert listed == [
        (metric.exported, metric.kind, metric.unit, ", ".join(f"`{tag}`" for tag in metric.tags), metric.description)
        for metric in METRICS
    ]
    assert re.findall(r"^\| (Fcn\w+) \|", page, re.MULTILINE) == [rule["alert"] for rule in rules()]
