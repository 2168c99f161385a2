"""OpenVINO, NNCF and ONNX Runtime are imported in one place, which keeps them from reporting their use."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requires import requires

ROOT = Path(__file__).parents[3]
EXEMPT = {ROOT / "fcn_core" / "inference" / "reporting_packages.py", Path(__file__)}
FOLDERS = ("fcn_core", "pipeline", "flows", "deploy", "tests", "benchmarks", "docs")
# A user's program there, which turns the report off by itself.
PAGES = {ROOT / "docs" / "predictor.md"}
PACKAGE = r"(?:openvino|nncf|onnxruntime)\b"
DIRECT_IMPORT = re.compile(
    # A statement, also one in a program that is given as a string; or a call, pytest's too.
    rf"""(?:^|["';]) *(?:import|from) +{PACKAGE}|(?:importorskip|import_module|__import__)\( *["']{PACKAGE}""",
    re.MULTILINE,
)


def test_nothing_else_imports_them() -> None:
    files = (
        {path for name in FOLDERS for kind in ("*.py", "*.md") for path in (ROOT / name).rglob(kind)} - EXEMPT - PAGES
    )
    found = {str(path.relative_to(ROOT)): DIRECT_IMPORT.findall(path.read_text()) for path in files}
    named = {name: imports for name, imports in found.items() if imports}
    assert named == {}, (
        "use import_openvino, import_nncf, import_onnxruntime, or tests.requires: they keep the telemetry out"
    )


@pytest.mark.parametrize(
    "text",
    [
        "import openvino\n",
        "    import nncf.torch\n",
        "from openvino import Core\n",
        'program = "import openvino"\n',
        'pytest.importorskip("nncf")\n',
        "importlib.import_module('openvino')\n",
        "import onnxruntime\n",
    ],
)
def test_the_search_finds_every_kind_of_import(text: str) -> None:
    assert DIRECT_IMPORT.search(text)
    assert not DIRECT_IMPORT.search(re.sub(r"openvino|nncf|onnxruntime", "onnx", text))


def test_importing_them_opens_no_connection_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    requires("nncf", install="'fcn-pipeline[quantize]'")
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    program = """
import sys
seen = []
watched = ("socket.connect", "socket.getaddrinfo", "os.fork", "os.posix_spawn")
def note(event, arguments):
    # PyTorch asks ldconfig where a library is, and newer Pythons start what they start in this way.
    if event in watched and not (event == "os.posix_spawn" and str(arguments[0]).endswith("/ldconfig")):
        seen.append(event)
sys.addaudithook(note)
from fcn_core.inference.reporting_packages import import_nncf, import_onnxruntime, import_openvino
import_openvino().convert_model, import_nncf().quantize, import_onnxruntime().InferenceSession
print(sorted(set(seen)), "openvino_telemetry" in sys.modules and sys.modules["openvino_telemetry"])
"""
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[] None\n"
    assert list(tmp_path.rglob("*")) == []
