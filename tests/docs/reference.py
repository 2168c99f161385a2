"""docs/make_api.py as a module: docs/ is no package."""

import importlib.util
import sys

from tests.docs.blocks import ROOT

_spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
assert _spec is not None
assert _spec.loader is not None
make_api = importlib.util.module_from_spec(_spec)
sys.modules["make_api"] = make_api
_spec.loader.exec_module(make_api)
