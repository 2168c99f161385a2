"""A process whose environment is full of secrets labels a bucket, well and badly; run by test_secrets.

`python -m tests.hostile.labels_with_secrets SOURCE OUTPUT MODEL FORBIDDEN RECORDS < URIS`. FORBIDDEN is a source
whose server refuses all credentials, in many words. What Ray's own records say goes into the file RECORDS. Each URI
on a line of standard input holds a secret, and is given wherever a URI can be given.
"""

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray._private.state import state
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

from pipeline.actors import cluster
from pipeline.cli.app import run as fcn

KV_NAMESPACES = (
    None,
    "fun",
    "cls",
    "job",
    "function_table",
    "serve",
    "dashboard",
    "session",
    "usage_stats",
    "healthcheck",
)


def main() -> None:
    source, output, model, forbidden, file = sys.argv[1:]
    secret_uris = sys.stdin.read().splitlines()
    options = ["--device", "cpu", "--cpus-per-actor", "1", "--actors", "1"]
    with cluster.connect():
        codes = [fcn(["segment", source, output, "--model", model, *options, "--json"])]
        codes.append(fcn(["segment", forbidden, output, "--model", model, *options]))
        for uri in secret_uris:
            codes.append(fcn(["segment", source, output, "--model", uri, *options]))
            codes.append(fcn(["segment", uri, output, "--model", model, *options]))
            codes.append(fcn(["segment", source, uri, "--model", model, *options]))
            codes.append(fcn(["model", "show", uri]))
        Path(file).write_text(repr(ray_records()))
    print(json.dumps({"codes": codes}))


def ray_records() -> dict[str, Any]:
    """What Ray's control service remembers of jobs, actors, nodes and tasks, and all that its key-value store holds."""
    records: dict[str, Any] = {
        "actors": state.actor_table(None),
        "jobs": state.job_table(),
        "nodes": ray.nodes(),
        "timeline": ray.timeline(),
        "resources": ray.cluster_resources(),
    }
    for namespace in KV_NAMESPACES:
        name = namespace.encode() if namespace else None
        for key in _internal_kv_list(b"", namespace=name):
            records[f"kv {namespace} {key!r}"] = _internal_kv_get(key, namespace=name)
    return records


if __name__ == "__main__":
    main()
