"""A model on its way to who runs it: its files in Ray's object store or as they are, a graph tried once for all.

The one thing to know: actors do not try the graph again. A trial compiles it in a process of its own, so it costs as
much as an actor's start; in every actor of a large machine that would be as many at a time.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fcn_core import BundleError, ModelBundle, PredictorSettings
from fcn_core.inference.engines.openvino_engine import try_int8
from fcn_core.inference.onnx_trial import try_onnx
from pipeline.errors import InputError


def put_model(bundle: ModelBundle, settings: PredictorSettings) -> Any:
    """A reference to the files of a bundle that actors will load with `load_tried`. Wants a Ray that is connected.

    Raises InputError if the bundle is int8 or an imported graph, and that graph of no use.
    """
    import ray  # takes a second, and who calls `load_tried` may do without

    with ThreadPoolExecutor(1) as thread:
        trial = None if bundle.kind == "network" else thread.submit(_try_where_actors_are, bundle, settings)
        files = ray.put(bundle.to_files())
        if trial is not None:
            trial.result()
    return files


def try_here(bundle: ModelBundle, settings: PredictorSettings) -> None:
    """Raise InputError if the bundle is int8 or an imported graph, and that graph of no use on this machine."""
    if bundle.kind != "network":
        trial, task = _trial(bundle, settings)
        try:
            trial(*task)
        except BundleError as error:
            raise _refused(bundle, error) from error


def load_tried(files: Any) -> ModelBundle:
    """The bundle with files whose graph was tried."""
    return ModelBundle.from_files(files, graph_tried=True)


def _trial(bundle: ModelBundle, settings: PredictorSettings) -> tuple[Callable[..., None], tuple[Any, ...]]:
    if bundle.int8 is not None:
        return try_int8, (bundle.int8, bundle.network_architecture, settings)
    return try_onnx, (bundle.onnx, bundle.architecture)


def _try_where_actors_are(bundle: ModelBundle, settings: PredictorSettings) -> None:
    import ray
    from ray.exceptions import RayTaskError

    if only_node_is_here():
        return try_here(bundle, settings)
    trial, task = _trial(bundle, settings)
    try:
        # The driver's machine may have other hardware, and no OpenVINO.
        ray.get(ray.remote(trial).options(num_cpus=0).remote(*task))
    except RayTaskError as error:
        if isinstance(error.cause, BundleError):
            raise _refused(bundle, error.cause) from error
        raise
    except BundleError as error:
        raise _refused(bundle, error) from error


def _refused(bundle: ModelBundle, error: BundleError) -> InputError:
    return InputError(f"model {bundle.model_id}: {error}")


def only_node_is_here() -> bool:
    """Whether Ray has no machine but this one. A worker of Ray's would have to start and import PyTorch first."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]} == {ray.get_runtime_context().get_node_id()}
