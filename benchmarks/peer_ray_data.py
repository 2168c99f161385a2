"""The pipeline that one would write with Ray Data: read_binary_files, a map that decodes, an actor with the model,
write_parquet, and Ray Data's own checkpoints. `peers.py` runs it.

It is given as many model threads as there are cores; by itself it would have one, for Ray sets OMP_NUM_THREADS to an
actor's num_cpus. It asks for no CPU of Ray's: with one, it and the actor that filters what is in the checkpoint hold
both CPUs of two, reading gets none, and a resumed run stands still for ever.

    python benchmarks/peer_ray_data.py FOLDER MODEL OUTPUT
"""

import os
import sys
from typing import Any

import ray
import ray.data
from plain_labeller import PlainLabeller, decoded
from ray.data.checkpoint import CheckpointConfig


def decode(row: dict[str, Any]) -> dict[str, Any]:
    return {"path": row["path"], "image": decoded(row["bytes"])}


class Labeller:
    def __init__(self, model: str, output: str, threads: int) -> None:
        self._labeller = PlainLabeller(model, output, threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(batch["path"], batch["image"], strict=True)
        found = [self._labeller.label(path, image) for path, image in pairs]
        return {"path": batch["path"], "mask": [mask for mask, _ in found], "areas": [areas for _, areas in found]}


def main() -> None:
    folder, model, output = sys.argv[1:]
    ray.init(log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig("path", f"{output}/checkpoint", delete_checkpoint_on_success=False)
    images = ray.data.read_binary_files(folder, include_paths=True)
    labelled = images.map(decode).map_batches(
        Labeller, fn_constructor_args=(model, output, len(os.sched_getaffinity(0))), batch_size=4, concurrency=1,
        num_cpus=0,
    )  # fmt: skip
    labelled.write_parquet(f"{output}/tables")


if __name__ == "__main__":
    main()
