"""Segmentation at scale: jobs that label, train and evaluate, object storage, tables of results, a registry of models.

    from pipeline import SegmentJob, segment

    report = segment(SegmentJob(source="photos", output="labels", model="model"))

Names are imported on first use, so that looking at options loads neither Ray nor PyTorch. What is named here is the
public interface; the modules behind it may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.actors.observer import Observer
    from pipeline.data.check import check_dataset
    from pipeline.data.datasets import open_dataset
    from pipeline.data.report import DataReport
    from pipeline.distillation.job import DistilReport, distil
    from pipeline.errors import ImageError, InputError, PipelineError, StorageError
    from pipeline.evaluation.files import EvaluationRecord, read_evaluation
    from pipeline.evaluation.job import EvaluateReport, evaluate
    from pipeline.evaluation.promotion import Verdict, compare_evaluations
    from pipeline.jobs.dataset import DatasetOptions
    from pipeline.jobs.distil import DistilJob
    from pipeline.jobs.evaluate import EvaluateJob
    from pipeline.jobs.retrain import RetrainJob
    from pipeline.jobs.segment import SegmentJob
    from pipeline.jobs.train import TrainJob
    from pipeline.models.load import load_bundle
    from pipeline.models.registry import Registry, open_registry
    from pipeline.outputs.current import current_rows, read_current
    from pipeline.outputs.masks import find_mask, read_mask
    from pipeline.retraining.job import RetrainReport, retrain
    from pipeline.segmentation.job import segment
    from pipeline.segmentation.run_report import RunReport
    from pipeline.storage.opening import open_store
    from pipeline.storage.store import Store
    from pipeline.training.job import train
    from pipeline.training.observer import BegunTraining, TrainObserver
    from pipeline.training.report import TrainReport

__all__ = [
    "BegunTraining",
    "DataReport",
    "DatasetOptions",
    "DistilJob",
    "DistilReport",
    "EvaluateJob",
    "EvaluateReport",
    "EvaluationRecord",
    "ImageError",
    "InputError",
    "Observer",
    "PipelineError",
    "Registry",
    "RetrainJob",
    "RetrainReport",
    "RunReport",
    "SegmentJob",
    "StorageError",
    "Store",
    "TrainJob",
    "TrainObserver",
    "TrainReport",
    "Verdict",
    "check_dataset",
    "compare_evaluations",
    "current_rows",
    "distil",
    "evaluate",
    "find_mask",
    "load_bundle",
    "open_dataset",
    "open_registry",
    "open_store",
    "read_current",
    "read_evaluation",
    "read_mask",
    "retrain",
    "segment",
    "train",
]

_MODULE_OF = {
    "pipeline.data.check": ("check_dataset",),
    "pipeline.data.datasets": ("open_dataset",),
    "pipeline.jobs.dataset": ("DatasetOptions",),
    "pipeline.data.report": ("DataReport",),
    "pipeline.distillation.job": ("DistilReport", "distil"),
    "pipeline.jobs.distil": ("DistilJob",),
    "pipeline.errors": (
        "ImageError",
        "InputError",
        "PipelineError",
        "StorageError",
    ),
    "pipeline.evaluation.files": (
        "EvaluationRecord",
        "read_evaluation",
    ),
    "pipeline.evaluation.job": (
        "EvaluateReport",
        "evaluate",
    ),
    "pipeline.jobs.evaluate": ("EvaluateJob",),
    "pipeline.models.load": ("load_bundle",),
    "pipeline.evaluation.promotion": (
        "Verdict",
        "compare_evaluations",
    ),
    "pipeline.models.registry": (
        "Registry",
        "open_registry",
    ),
    "pipeline.outputs.current": ("current_rows", "read_current"),
    "pipeline.outputs.masks": (
        "find_mask",
        "read_mask",
    ),
    "pipeline.retraining.job": (
        "RetrainReport",
        "retrain",
    ),
    "pipeline.jobs.retrain": ("RetrainJob",),
    "pipeline.segmentation.job": (
        "RunReport",
        "segment",
    ),
    "pipeline.actors.observer": ("Observer",),
    "pipeline.jobs.segment": ("SegmentJob",),
    "pipeline.storage.opening": ("open_store",),
    "pipeline.storage.store": ("Store",),
    "pipeline.training.job": ("train",),
    "pipeline.training.report": ("TrainReport",),
    "pipeline.training.observer": ("BegunTraining", "TrainObserver"),
    "pipeline.jobs.train": ("TrainJob",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULE_OF.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
