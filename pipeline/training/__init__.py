"""A training job on Ray Train: options, plan, workers, checkpoints in object storage."""
