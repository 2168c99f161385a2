"""Segmentation at scale: jobs that label, train and evaluate, object storage, tables of results, a registry of models.

    from pipeline import SegmentJob, segment

    report = segment(SegmentJob(source="photos", output="labels", model="model"))

Names are imported on first use, so that looking at options loads neither Ray nor PyTorch. What is named here is the
public interface; the modules behind it may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.current import current_rows
    from pipeline.data_check import check_dataset
    from pipeline.data_report import DataReport
    from pipeline.dataset_options import DatasetOptions
    from pipeline.datasets import open_dataset
    from pipeline.errors import ImageError, InputError, PipelineError, StorageError
    from pipeline.evaluate_options import EvaluateJob
    from pipeline.evaluation import EvaluateReport, evaluate
    from pipeline.job import RunReport, segment
    from pipeline.job_options import SegmentJob
    from pipeline.models import load_bundle
    from pipeline.observer import Observer
    from pipeline.registry import Registry, open_registry
    from pipeline.results import read_current
    from pipeline.storage import Store, open_store
    from pipeline.train_options import TrainJob
    from pipeline.training import TrainObserver, TrainReport, train

__all__ = [
    "DataReport",
    "DatasetOptions",
    "EvaluateJob",
    "EvaluateReport",
    "ImageError",
    "InputError",
    "Observer",
    "PipelineError",
    "Registry",
    "RunReport",
    "SegmentJob",
    "StorageError",
    "Store",
    "TrainJob",
    "TrainObserver",
    "TrainReport",
    "check_dataset",
    "current_rows",
    "evaluate",
    "load_bundle",
    "open_dataset",
    "open_registry",
    "open_store",
    "read_current",
    "segment",
    "train",
]

_MODULE_OF = {
    "pipeline.current": ("current_rows",),
    "pipeline.data_check": ("check_dataset",),
    "pipeline.data_report": ("DataReport",),
    "pipeline.dataset_options": ("DatasetOptions",),
    "pipeline.datasets": ("open_dataset",),
    "pipeline.errors": ("ImageError", "InputError", "PipelineError", "StorageError"),
    "pipeline.evaluate_options": ("EvaluateJob",),
    "pipeline.evaluation": ("EvaluateReport", "evaluate"),
    "pipeline.job": ("RunReport", "segment"),
    "pipeline.job_options": ("SegmentJob",),
    "pipeline.models": ("load_bundle",),
    "pipeline.observer": ("Observer",),
    "pipeline.registry": ("Registry", "open_registry"),
    "pipeline.results": ("read_current",),
    "pipeline.storage": ("Store", "open_store"),
    "pipeline.train_options": ("TrainJob",),
    "pipeline.training": ("TrainObserver", "TrainReport", "train"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULE_OF.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
