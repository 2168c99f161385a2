"""`make demo`: the whole tool on generated street scenes with known ground truth, on this machine, in a few minutes."""
