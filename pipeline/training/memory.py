"""How much memory this process has had at once."""

import resource

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's memory where it is used, else of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
