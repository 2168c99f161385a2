"""A model for the site's registry, as champion: `python -m deploy.local.model demo-output/model`.

Where there is no such model, one with random weights: its masks say nothing, but everything works with it.
"""

import sys
from pathlib import Path

import torch

from deploy.local.settings import MODEL_NAME, REGISTRY
from fcn_core import Architecture, ModelBundle, build
from flows.demo.scenes import SCENE_LABELS
from pipeline.models.registry import Registry
from pipeline.storage.opening import open_store

SEED = 4


def random_model() -> ModelBundle:
    """A narrow FCN-8s whose every weight is random: a new network's score layers are zero, and its masks one class."""
    network = build(Architecture(num_classes=SCENE_LABELS.num_classes, width=0.125, head_width=32))
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 1.5 / max(1.0, parameter[0].numel() ** 0.5) if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return ModelBundle.from_model(network, SCENE_LABELS, provenance={"made": "random weights, to try a site with"})


def main() -> None:
    """One argument: the folder where a trained model may be."""
    folder = Path(sys.argv[1])
    trained = folder.is_dir()
    bundle = ModelBundle.load(folder) if trained else random_model()
    registry = Registry(open_store(REGISTRY))
    version = registry.publish(MODEL_NAME, bundle)
    registry.promote(MODEL_NAME, version, f"the model in {folder}" if trained else "random weights, to try a site with")
    print(f"registry:{MODEL_NAME}@champion is {folder if trained else 'a model with random weights'}: {version}")


if __name__ == "__main__":
    main()
