"""A model that also says what each image looks like to it, and what becomes of that in a shard."""

from collections.abc import Sequence

from fcn_core import ModelBundle, Predictor, PredictorSettings
from fcn_core.inference.predictor import Launched, Outputs
from pipeline.actors.inference import Image
from pipeline.errors import InputError


class PredictorWithFeatures:
    """A Predictor whose segmentations have features."""

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings) -> None:
        self._predictor = Predictor(bundle, settings)

    def launch(self, images: Sequence[Image], /, *, sizes: Sequence[tuple[int, int]] | None = None) -> Launched:
        return self._predictor.launch(images, Outputs(features=True), sizes)


def check_has_features(bundle: ModelBundle) -> None:
    """Raise InputError for a model that gives none."""
    if bundle.kind == "onnx":
        raise InputError(
            "the model is an imported ONNX graph, which gives scores and no features; leave --features out: `fcn rank "
            "--diverse` then goes by the areas of the classes"
        )
