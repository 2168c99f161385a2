"""Fully convolutional networks for semantic segmentation: models, weights, prediction, training. PyTorch only.

    from fcn_core import ModelBundle, Predictor

    predictor = Predictor(ModelBundle.load("model"))
    mask = predictor.predict([image])[0].mask  # image: uint8 [H, W, 3]; mask: uint8 [H, W]

Names are imported on first use, so that what needs no torch (label sets, mask files) does not load it. What is named
here is the public interface; the modules behind it may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcn_core.bundle import ModelBundle
    from fcn_core.data.datasets import Dataset, Example, InMemory, Pairs
    from fcn_core.errors import (
        BundleError,
        CheckpointError,
        DataError,
        DeviceError,
        DivergedError,
        ExportError,
        FcnError,
        LabelError,
        PredictionError,
        WeightsError,
    )
    from fcn_core.inference.evaluation import evaluate
    from fcn_core.inference.predictor import Launched, Outputs, Predictor, Segmentation
    from fcn_core.inference.settings import PredictorSettings, resolve_settings
    from fcn_core.labels import LabelSet, decode_mask, encode_mask, preset
    from fcn_core.metrics import ConfusionMatrix, Scores
    from fcn_core.models.architecture import Architecture
    from fcn_core.models.building import build
    from fcn_core.models.fcn import FCN
    from fcn_core.models.network import Network
    from fcn_core.normalization import Normalization
    from fcn_core.render import colorize, overlay
    from fcn_core.training.config import TrainConfig, recipe
    from fcn_core.training.trainer import StepReport, Trainer
    from fcn_core.weights.importing import Imported, import_weights

__all__ = [
    "FCN",
    "Architecture",
    "BundleError",
    "CheckpointError",
    "ConfusionMatrix",
    "DataError",
    "Dataset",
    "DeviceError",
    "DivergedError",
    "Example",
    "ExportError",
    "FcnError",
    "Imported",
    "InMemory",
    "LabelError",
    "LabelSet",
    "Launched",
    "ModelBundle",
    "Network",
    "Normalization",
    "Outputs",
    "Pairs",
    "PredictionError",
    "Predictor",
    "PredictorSettings",
    "Scores",
    "Segmentation",
    "StepReport",
    "TrainConfig",
    "Trainer",
    "WeightsError",
    "build",
    "colorize",
    "decode_mask",
    "encode_mask",
    "evaluate",
    "import_weights",
    "overlay",
    "preset",
    "recipe",
    "resolve_settings",
]

_MODULE_OF = {
    "fcn_core.models.architecture": ("Architecture",),
    "fcn_core.bundle": ("ModelBundle", "Normalization"),
    "fcn_core.data.datasets": ("Dataset", "Example", "InMemory", "Pairs"),
    "fcn_core.errors": (
        "BundleError",
        "CheckpointError",
        "DataError",
        "DeviceError",
        "DivergedError",
        "ExportError",
        "FcnError",
        "LabelError",
        "PredictionError",
        "WeightsError",
    ),
    "fcn_core.inference.evaluation": ("evaluate",),
    "fcn_core.models.building": ("build",),
    "fcn_core.models.fcn": ("FCN",),
    "fcn_core.weights.importing": ("Imported", "import_weights"),
    "fcn_core.labels": ("LabelSet", "decode_mask", "encode_mask", "preset"),
    "fcn_core.metrics": ("ConfusionMatrix", "Scores"),
    "fcn_core.models.network": ("Network",),
    "fcn_core.inference.predictor": ("Launched", "Outputs", "Predictor", "Segmentation"),
    "fcn_core.render": ("colorize", "overlay"),
    "fcn_core.inference.settings": ("PredictorSettings", "resolve_settings"),
    "fcn_core.training.config": ("TrainConfig", "recipe"),
    "fcn_core.training.trainer": ("StepReport", "Trainer"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULE_OF.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
