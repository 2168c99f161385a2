"""A model on its way to the actors: its files in Ray's object store, a graph tried once for all of them.

The one thing to know: actors do not try the graph again. A trial compiles it in a process of its own, so it costs as
much as an actor's start; in every actor of a large machine that would be as many at a time.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import RayTaskError

from fcn_core import BundleError, ModelBundle, PredictorSettings
from fcn_core.inference.engines.openvino_engine import try_int8
from fcn_core.inference.onnx_trial import try_onnx
from pipeline.errors import InputError


def put_model(bundle: ModelBundle, settings: PredictorSettings) -> Any:
    """A reference to the files of a bundle that actors will load with `load_tried`. Wants a Ray that is connected.

    Raises InputError if the bundle is int8 or an imported graph, and that graph of no use.
    """
    with ThreadPoolExecutor(1) as thread:
        trial = None if bundle.kind == "network" else thread.submit(_try, bundle, settings)
        files = ray.put(bundle.to_files())
        if trial is not None:
            trial.result()
    return files


def load_tried(files: Any) -> ModelBundle:
    """The bundle with files that `put_model` has handed on."""
    return ModelBundle.from_files(files, graph_tried=True)


def _try(bundle: ModelBundle, settings: PredictorSettings) -> None:
    trial: Callable[..., None]
    task: tuple[Any, ...]
    if bundle.int8 is not None:
        trial, task = try_int8, (bundle.int8, bundle.network_architecture, settings)
    else:
        trial, task = try_onnx, (bundle.onnx, bundle.architecture)
    try:
        if only_node_is_here():
            trial(*task)
        else:
            # Where the actors will be: the driver's machine may have other hardware, and no OpenVINO.
            ray.get(ray.remote(trial).options(num_cpus=0).remote(*task))
    except RayTaskError as error:
        if isinstance(error.cause, BundleError):
            raise InputError(f"model {bundle.model_id}: {error.cause}") from error
        raise
    except BundleError as error:
        raise InputError(f"model {bundle.model_id}: {error}") from error


def only_node_is_here() -> bool:
    """Whether Ray has no machine but this one. A worker of Ray's would have to start and import PyTorch first."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]} == {ray.get_runtime_context().get_node_id()}
