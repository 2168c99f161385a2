"""What a test needs that this machine may not have."""

import importlib.util

import pytest


def requires(package: str, *, install: str) -> None:
    """Skip the calling test, or the module that calls this as it is imported, unless `package` is installed.

    Looks the package up without importing it: OpenVINO and NNCF send reports unless
    fcn_core.inference.reporting_packages imports them. install: what pip is to install to bring the package.
    """
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install {install}", allow_module_level=True)
