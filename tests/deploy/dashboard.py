"""What deploy/grafana asks Prometheus for, read with a parser of Prometheus's language."""

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser

from tests.deploy.manifests import DEPLOY, documents

GRAFANA = DEPLOY / "grafana"


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "fcn-pipeline.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    (found,) = documents((GRAFANA / "alerts.yaml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def selected(expression: str) -> set[str]:
    """The metrics that an expression selects. Raises ValueError when Prometheus would refuse it."""
    found = re.findall(r"\bray_fcn_\w+", promql_parser.parse(expression).prettify())
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def labels_asked() -> Iterator[tuple[str, str]]:
    """Metrics and the labels by which expressions of the dashboard and the alerts choose among their series."""
    for expression in [*expressions(), *(rule["expr"] for rule in rules())]:
        for name, inside in re.findall(r"\b(ray_fcn_\w+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)\s*=~?", inside):
                yield re.sub(r"_bucket$", "", name), label
