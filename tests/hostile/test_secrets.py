"""No secret gets out: canaries in the environment and in URIs are looked for in all that a labelling run leaves."""

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.storage.opening import open_store
from tests.faulty_s3 import FaultyS3
from tests.samples import jpeg

ROOT = Path(__file__).parents[2]
CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret-1f6c",
    "AWS_SESSION_TOKEN": "canary-aws-token-9d0a",
    "RAY_AUTH_TOKEN": "canary-ray-token-0123456789abcdef0123456789abcdef",
    "PREFECT_API_KEY": "canary-prefect-key-77e1",
    "AZURE_STORAGE_ACCOUNT_KEY": "canary-azure-key-4b2e",
    "HF_TOKEN": "canary-hub-token-5511",
}
IN_URIS = "canary-in-uri-e7b3"
SECRET_URIS = (
    f"s3://user:{IN_URIS}@bucket/model",
    f"s3://bucket/model?secret_access_key={IN_URIS}",
    f"s3://bucket/model?X-Amz-Signature={IN_URIS}",
    f"s3://bucket/model?endpoint_url=http://user:{IN_URIS}@127.0.0.1:9",
    f"az://container/model?sv=2024&sig={IN_URIS}",
    f"gs://user:{IN_URIS}@bucket/model",
    f"https://user:{IN_URIS}@example.com/model",
    f"https://example.com/model?sig={IN_URIS}",
)


class Left:
    """All that the process left: what it said, Ray's folder with every log, Ray's records, and the output."""

    def __init__(self, said: subprocess.CompletedProcess[str], texts: dict[str, bytes]) -> None:
        self.said = said
        self.texts = texts

    def mentions(self, secret: str) -> list[str]:
        return sorted(name for name, content in self.texts.items() if secret.encode() in content)


@pytest.fixture(scope="module")
def left(s3_endpoint: str, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    import boto3

    bucket = "secrets-canaries"
    boto3.client("s3").create_bucket(Bucket=bucket)
    source, output = open_store(f"s3://{bucket}/photos"), open_store(f"s3://{bucket}/labels")
    for index in range(4):
        source.put(f"{index}.jpg", jpeg(60, 40, seed=index))
    source.put("bad.jpg", b"no image")
    records = tmp_path_factory.mktemp("secrets") / "ray-records"
    # Short: the paths of Ray's sockets must fit into 107 bytes.
    ray_folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    environment = os.environ | CANARIES | {"RAY_AUTH_MODE": "token", "RAY_TMPDIR": str(ray_folder)}
    try:
        with FaultyS3(s3_endpoint) as proxy:
            proxy.faults = ["403 AccessDenied"] * 1000
            said = subprocess.run(
                [
                    *(sys.executable, "-m", "tests.hostile.labels_with_secrets", source.uri, output.uri),
                    *(str(model_dir), f"s3://{bucket}/photos?endpoint_url={proxy.endpoint}", str(records)),
                ],
                input="\n".join(SECRET_URIS),  # Ray keeps the command lines of those who connect
                cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False,
            )  # fmt: skip
        texts = {"stdout": said.stdout.encode(), "stderr": said.stderr.encode()}
        texts |= {f"ray {path}": path.read_bytes() for path in ray_folder.rglob("*") if path.is_file()}
        texts["ray records"] = records.read_bytes() if records.exists() else b""
        for info in output.list():
            texts[f"output {info.key}"] = content = output.get(info.key)
            if info.key.endswith(".parquet"):
                texts[f"rows of {info.key}"] = repr(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
        yield Left(said, texts)
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)


def test_the_process_did_what_it_was_to_do(left: Left) -> None:
    """Else the tests below would find nothing because there was nothing."""
    assert left.said.returncode == 0, left.said.stderr[-3000:]
    codes = json.loads(left.said.stdout.splitlines()[-1])["codes"]
    assert codes == [0, 2] + [2] * 4 * len(SECRET_URIS), left.said.stderr
    assert any(name.startswith("ray ") and "raylet" in name for name in left.texts)
    assert any(name.startswith("output reports/") for name in left.texts)
    assert any(name.startswith("rows of results/") for name in left.texts)
    assert b"_ShardWorker" in left.texts["ray records"]


@pytest.mark.parametrize("name", CANARIES)
def test_no_secret_of_the_environment_is_written_anywhere(left: Left, name: str) -> None:
    assert left.mentions(CANARIES[name]) == []


def test_no_secret_in_a_uri_is_repeated(left: Left) -> None:
    assert left.mentions(IN_URIS) == []


def test_what_a_server_says_of_tokens_is_not_passed_on(left: Left) -> None:
    assert "AccessDenied" in left.said.stderr
    assert left.mentions("very-secret-token") == []


PRODUCT = [path for folder in ("fcn_core", "pipeline", "flows") for path in sorted((ROOT / folder).rglob("*.py"))]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unpickles(tree: ast.AST) -> Iterator[str]:
    """What in a module could run code that stands in data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in UNPICKLERS:
                yield str(node.module)
            if node.module == "torch" and any(alias.name == "load" for alias in node.names):
                yield "torch.load under another name"
        elif isinstance(node, ast.Call):
            called, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called == "torch.load" and options.get("weights_only") != "True":
                yield f"{called} without weights_only=True"
            if options.get("allow_pickle", "False") != "False" or called in ("eval", "exec"):
                yield f"{called} at line {node.lineno}"
            if called.startswith("yaml.") and called not in ("yaml.safe_load", "yaml.safe_dump", "yaml.YAMLError"):
                yield called
            if options.get("verify") == "False" or "_create_unverified_context" in called:
                yield f"{called} without verifying TLS"


BETWEEN_OWN_PROCESSES = {"pipeline/actors/lone_main.py": ["pickle"], "pipeline/actors/lone_worker.py": ["pickle"]}
"""A driver and the worker process that it starts, through descriptors that nobody else has; as Ray does it."""


def test_nothing_in_the_product_unpickles_or_trusts_blindly() -> None:
    assert len(PRODUCT) > 100
    found = {str(path.relative_to(ROOT)): list(unpickles(ast.parse(path.read_text()))) for path in PRODUCT}
    assert {path: what for path, what in found.items() if what} == BETWEEN_OWN_PROCESSES


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from cloudpickle import loads",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "requests.get(url, verify=False)",
    ],
)
def test_the_search_finds_what_it_is_for(text: str) -> None:
    assert list(unpickles(ast.parse(text)))
