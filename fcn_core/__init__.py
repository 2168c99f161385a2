"""Fully convolutional networks for semantic segmentation: models, weights, prediction, training. PyTorch
only.

Names are imported on first use, so that what needs no torch (label sets, mask files) does not load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcn_core.architecture import Architecture
    from fcn_core.bundle import ModelBundle, Normalization
    from fcn_core.errors import BundleError, DataError, DeviceError, ExportError, FcnError, LabelError, WeightsError
    from fcn_core.fcn import FCN, build
    from fcn_core.importing import Imported, import_weights
    from fcn_core.labels import LabelSet, preset
    from fcn_core.network import Network
    from fcn_core.predict import Outputs, Predictor, PredictorSettings, Segmentation, resolve_settings

__all__ = [
    "FCN",
    "Architecture",
    "BundleError",
    "DataError",
    "DeviceError",
    "ExportError",
    "FcnError",
    "Imported",
    "LabelError",
    "LabelSet",
    "ModelBundle",
    "Network",
    "Normalization",
    "Outputs",
    "Predictor",
    "PredictorSettings",
    "Segmentation",
    "WeightsError",
    "build",
    "import_weights",
    "preset",
    "resolve_settings",
]

_MODULE_OF = {
    "fcn_core.architecture": ("Architecture",),
    "fcn_core.bundle": ("ModelBundle", "Normalization"),
    "fcn_core.errors": (
        "BundleError",
        "DataError",
        "DeviceError",
        "ExportError",
        "FcnError",
        "LabelError",
        "WeightsError",
    ),
    "fcn_core.fcn": ("FCN", "build"),
    "fcn_core.importing": ("Imported", "import_weights"),
    "fcn_core.labels": ("LabelSet", "preset"),
    "fcn_core.network": ("Network",),
    "fcn_core.predict": ("Outputs", "Predictor", "PredictorSettings", "Segmentation", "resolve_settings"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULE_OF.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
