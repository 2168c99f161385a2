"""Manifests as the tests see them: read strictly, rendered by the real tools, and held against their schemas.

`problems` is what to ask of any Kubernetes or KubeRay document, whoever made it.
"""

import copy
import functools
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = DEPLOY / "kuberay"
OVERLAYS = ("cpu", "gpu", "example")

KUBERNETES = "1.34"
"""The version whose schemas core kinds are held against."""

SCHEMAS = os.environ.get("FCN_KUBERAY_SCHEMAS")
"""A folder with the schemas of KubeRay's resources; without it those are only held against the schema of a pod."""

needs_schemas = pytest.mark.skipif(
    SCHEMAS is None, reason="FCN_KUBERAY_SCHEMAS names no folder with KubeRay's schemas: CONTRIBUTING.md says which"
)

_SCHEMA_FILES = {
    "RayCluster": "rayclusters.ray.io_v1.openapi.json.gz",
    "RayJob": "rayjobs.ray.io_v1.openapi.json.gz",
}


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {sorted(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML text. Raises YAMLError, also for keys that stand twice."""
    return [found for found in yaml.load_all(text, _Loader) if found is not None]


def tool(name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tools that the tests' packages bring."""
    program = Path(sys.executable).parent / name
    return subprocess.run(
        [program, *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.devnull, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send. Raises AssertionError with kubectl's words."""
    done = tool("kubectl", "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


@functools.cache
def site(overlay: str) -> list[dict[str, Any]]:
    return kustomized(KUBERAY / "overlays" / overlay)


def ray_job() -> dict[str, Any]:
    """The template of a job with its own cluster."""
    (found,) = documents((KUBERAY / "rayjob.yaml").read_text())
    return found


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document, misspelt fields included; nothing where all is well."""
    kind = document["kind"]
    if document["apiVersion"] != "ray.io/v1":
        return _core_problems(document)
    found = [
        f"{where}: {problem}"
        for where, template in pod_templates(document)
        for problem in _core_problems({"apiVersion": "v1", "kind": "Pod", **_with_name(template)})
    ]
    if SCHEMAS is not None:
        errors = jsonschema.Draft7Validator(_ray_schema(kind)).iter_errors(document)
        found += [f"{kind}.{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in errors]
    return found


def _core_problems(document: dict[str, Any]) -> list[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{document['kind']}.{'.'.join(map(str, error.path))}: {error.message[:300]}"]
    return []


def _with_name(template: dict[str, Any]) -> dict[str, Any]:
    return {**template, "metadata": {"name": "pod", **template.get("metadata", {})}}


@functools.cache
def _ray_schema(kind: str) -> dict[str, Any]:
    assert SCHEMAS is not None
    with gzip.open(Path(SCHEMAS) / _SCHEMA_FILES[kind]) as file:
        schema: dict[str, Any] = json.load(file)
    schema["properties"]["metadata"] = {"type": "object"}
    return _strict(schema)


def _strict(schema: Any) -> Any:
    """With every field that the schema does not name forbidden, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


def pod_templates(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a document has templates of pods, and the templates."""
    name = f"{document['kind']} {document['metadata'].get('name', '')}".strip()
    spec = document.get("spec", {})
    if document["kind"] in ("Deployment", "StatefulSet", "Job"):
        yield name, spec["template"]
    if document["kind"] == "RayJob":
        yield f"{name} submitter", spec["submitterPodTemplate"]
        spec = spec["rayClusterSpec"]
    if document["kind"] in ("RayCluster", "RayJob"):
        yield f"{name} head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield f"{name} group {group['groupName']}", group["template"]


def values_of(document: Any, key: str) -> Iterator[Any]:
    """Every value that stands under `key`, at any depth."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(document, list):
        for item in document:
            yield from values_of(item, key)


def changed(document: dict[str, Any], path: tuple[str | int, ...], old: str, new: str) -> dict[str, Any]:
    """A copy in which a field further down has another name."""
    made = copy.deepcopy(document)
    place: Any = made
    for step in path:
        place = place[step]
    place[new] = place.pop(old)
    return made
