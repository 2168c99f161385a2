"""ONNX Runtime on this machine: whether it is installed, and whether it computes on CUDA devices."""

import importlib.util

from fcn_core.inference.reporting_packages import import_onnxruntime

INSTALL = "pip install 'fcn-pipeline[onnx]'"


def is_installed() -> bool:
    """Whether there is an ONNX Runtime to import."""
    return importlib.util.find_spec("onnxruntime") is not None


def has_cuda() -> bool:
    """Whether it is the package that computes on CUDA devices (onnxruntime-gpu)."""
    return is_installed() and "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()
