"""What the packages export: it is all there, all described, and looking at it loads nothing heavy."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import fcn_core
import pipeline
from fcn_core.inference import openvino_runtime
from tests.docs.reference import make_api
from tests.fcn_core.nets import small_bundle

PACKAGES = (fcn_core, pipeline)
EXPORTED = [(package, name) for package in PACKAGES for name in package.__all__]
JOBS = ("SegmentJob", "TrainJob", "EvaluateJob", "DatasetOptions")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_name_that_is_promised_is_there_and_only_once(package: ModuleType) -> None:
    listed = [name for names in package._MODULE_OF.values() for name in names]
    assert sorted(listed) == sorted(package.__all__)
    assert len(set(listed)) == len(listed)
    for module, names in package._MODULE_OF.items():
        for name in names:
            assert getattr(package, name) is getattr(import_module(module), name)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = package.nothing_of_the_kind


def test_a_name_of_a_function_hides_no_module() -> None:
    """`from pipeline import training` must go on meaning the package, however often names were used before."""
    for package, name in EXPORTED:
        try:
            import_module(f"{package.__name__}.{name}")
        except ModuleNotFoundError:
            continue
        pytest.fail(f"{package.__name__}.{name} is a module and an exported name")


@pytest.mark.parametrize(("package", "name"), EXPORTED, ids=lambda value: value if isinstance(value, str) else "")
def test_every_public_name_is_described(package: ModuleType, name: str) -> None:
    member: Any = getattr(package, name)
    assert (inspect.getdoc(member) or "").strip(), f"{name} has no docstring"
    if not isinstance(member, type):
        return
    assert member.__doc__, f"{name} has no docstring of its own"
    for node, _ in make_api.methods(member):
        assert inspect.getdoc(getattr(member, node.name)), f"{name}.{node.name} has no docstring"


@pytest.mark.parametrize("name", JOBS)
def test_every_option_of_a_job_is_described(name: str) -> None:
    job: type[BaseModel] = getattr(pipeline, name)
    assert [option for option, field in job.model_fields.items() if not field.description] == []


def test_importing_the_packages_loads_neither_torch_nor_ray() -> None:
    program = (
        "import sys, pipeline, fcn_core\n"
        "from pipeline import SegmentJob, open_store\n"
        "from fcn_core import LabelSet, preset\n"
        "import pipeline.cli.app\n"
        "print([name for name in ('torch', 'ray', 'boto3', 'pyarrow', 'prefect') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_labelling_does_not_load_the_compiler_nor_torchvision_where_the_network_is_ours(tmp_path: Path) -> None:
    small_bundle().save(tmp_path / "vgg16")
    small_bundle(backbone="mobilenet_v3_large").save(tmp_path / "mobilenet")  # torchvision's
    engines = ["torch", "openvino"] if openvino_runtime.is_installed() else ["torch"]
    program = (
        "import sys, numpy, pipeline.cli.run_launch, pipeline.segmentation.segmenter\n"
        "from fcn_core import ModelBundle, Predictor, resolve_settings\n"
        "for model in ('vgg16', 'mobilenet'):\n"
        f"    for engine in {engines}:\n"
        "        settings = resolve_settings('cpu', engine=engine)\n"
        f"        predictor = Predictor(ModelBundle.load({str(tmp_path)!r} + '/' + model), settings)\n"
        "        predictor.predict([numpy.zeros((64, 96, 3), numpy.uint8)])\n"
        "        print([name for name in ('torchvision', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"] * len(engines) + ["['torchvision']"] * len(engines)
