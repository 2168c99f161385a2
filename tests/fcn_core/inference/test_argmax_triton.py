"""The CUDA kernel, run by Triton's interpreter on the CPU: its masks are the argmax of the interpolated scores."""

import os
import subprocess
import sys

from tests.requires import requires

requires("triton", install="triton (builds of PyTorch for CUDA bring it)")

PROGRAM = """
import torch
from fcn_core.inference.argmax_triton import label_scores
from fcn_core.inference.argmax import logit_strips
from fcn_core.models.upsampling import Upsampling

cases = [
    (Upsampling.half_pixel((3, 5), (21, 37), 8), (2, 4, 3, 5)),
    (Upsampling.resized((3, 10), (9, 77)), (1, 3, 3, 10)),
    (Upsampling.transposed((4, 4), (25, 29), kernel=16, stride=8, crop=3), (1, 5, 4, 4)),
]
for upsampling, shape in cases:
    for dtype in (torch.float32, torch.bfloat16):
        scores = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        masks = label_scores(scores.to(memory_format=torch.channels_last), upsampling)
        for mask, cells in zip(masks, scores, strict=True):
            logits = torch.cat([part for _, _, part in logit_strips(cells, upsampling)])
            lost = logits.amax(-1) - logits.gather(-1, mask.long()[..., None])[..., 0]
            assert lost.max() <= 1e-5, lost.max()
            assert len(mask.unique()) > 1
            if upsampling.rows.clamp:
                assert (mask != logits.argmax(-1)).sum() == 0
        for below in (0.4, 0.8) if shape[0] > 1 else (0.8,):
            masks = label_scores(scores, upsampling, below)
            for mask, cells in zip(masks, scores, strict=True):
                logits = torch.cat([part for _, _, part in logit_strips(cells, upsampling)])
                probability, label = logits.softmax(-1).max(-1)
                clear = (probability - below).abs() > 1e-5
                assert ((mask == 255) == (probability < below))[clear].all()
                assert (mask == 255).any()
ties = torch.zeros(1, 3, 4, 4)
assert label_scores(ties, Upsampling.half_pixel((4, 4), (32, 32), 8)).max() == 0
ties[0, 1] = float("nan")
assert label_scores(ties, Upsampling.half_pixel((4, 4), (32, 32), 8)).unique().tolist() == [1]
"""


def test_the_kernel_gives_the_argmax() -> None:
    # In a process of its own: the interpreter is chosen when Triton is imported.
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
