"""The widest layers (fc6 and fc7 have 4096 channels) on the map of a very large image, some rows at a time.

The one thing to know: nothing but memory changes. Each strip is read with the rows above and below that its own look
at, so what is kept of it equals the same rows of one pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Values of the widest map held at once: 256 MiB in float32. A 16-megapixel image still goes in one piece.
_STRIP_VALUES = 1 << 26


def in_row_strips(
    layers: Callable[[Tensor], Tensor], x: Tensor, *, rows: int, above: int, below: int, channels: int
) -> Tensor:
    """layers(x) for x [N, C, h, w], without holding a map of `channels` channels as high as x where that is large.

    rows: how many come out. Row i depends on rows i - above to i + below of x, as far as there are such.
    """
    # Gradients need every strip's maps anyway, and an exported graph has no loops.
    if torch.is_grad_enabled() or torch.compiler.is_exporting():
        return layers(x)
    step = max(1, _STRIP_VALUES // (channels * x.shape[0] * x.shape[3]))
    if step >= rows:
        return layers(x)
    strips = []
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        first = max(start - above, 0)
        part = layers(x[:, :, first : stop + below])
        strips.append(part[:, :, start - first : stop - first])
    return torch.cat(strips, dim=2)
