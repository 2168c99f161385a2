"""Whether a model is of any use, before it is published or compared."""

from typing import TYPE_CHECKING

import numpy as np

from fcn_core.errors import BundleError, PredictionError
from pipeline.errors import InputError

if TYPE_CHECKING:
    from fcn_core.bundle import ModelBundle  # of PyTorch's tensors: who only looks models up needs none

_PROBE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
"""An image of noise that every model must have finite scores of."""


def check_scores(bundle: "ModelBundle") -> None:
    """Raise InputError if a model has weights, or scores of an image, that are not finite numbers."""
    from fcn_core.inference.predictor import Predictor
    from fcn_core.inference.settings import resolve_settings
    from fcn_core.models.state_check import check_finite

    try:
        check_finite(bundle.state, "its state")
        if bundle.kind == "network":  # a graph was tried when it was made, and needs an engine that may not be here
            settings = resolve_settings(device="cpu", precision="float32", engine="torch")
            Predictor(bundle, settings).predict([_PROBE])
    except (BundleError, PredictionError) as error:
        raise InputError(f"model {bundle.model_id} is of no use: {error}") from error
