"""A model on its way to the actors: its files in Ray's object store, its int8 graph tried once for all of them.

The one thing to know: actors do not try the graph again. A trial compiles it in a process of its own, so it costs as
much as an actor's start; in every actor of a large machine that would be as many at a time.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import RayTaskError

from fcn_core import BundleError, ModelBundle, PredictorSettings
from fcn_core.bundle import Int8Graph
from fcn_core.inference.engines.openvino_engine import try_int8
from pipeline.errors import InputError


def put_model(bundle: ModelBundle, settings: PredictorSettings) -> Any:
    """A reference to the files of a bundle that actors will load with `load_tried`. Wants a Ray that is connected.

    Raises InputError if the bundle is int8, and its graph of no use.
    """
    with ThreadPoolExecutor(1) as thread:
        graph = bundle.int8
        trial = None if graph is None else thread.submit(_try, bundle, graph, settings)
        files = ray.put(bundle.to_files())
        if trial is not None:
            trial.result()
    return files


def load_tried(files: Any) -> ModelBundle:
    """The bundle with files that `put_model` has handed on."""
    return ModelBundle.from_files(files, graph_tried=True)


def _try(bundle: ModelBundle, graph: Int8Graph, settings: PredictorSettings) -> None:
    task = (graph, bundle.architecture, settings)
    try:
        if only_node_is_here():
            try_int8(*task)
        else:
            # Where the actors will be: the driver's machine may have other hardware, and no OpenVINO.
            ray.get(ray.remote(try_int8).options(num_cpus=0).remote(*task))
    except RayTaskError as error:
        if isinstance(error.cause, BundleError):
            raise InputError(f"model {bundle.model_id}: {error.cause}") from error
        raise
    except BundleError as error:
        raise InputError(f"model {bundle.model_id}: {error}") from error


def only_node_is_here() -> bool:
    """Whether Ray has no machine but this one. A worker of Ray's would have to start and import PyTorch first."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]} == {ray.get_runtime_context().get_node_id()}
