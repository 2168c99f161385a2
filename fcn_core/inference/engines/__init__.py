"""What computes a network's scores: PyTorch, or an inference engine that is faster where it is installed.

The one thing to know: an engine takes pixels and gives scores, normalisation included; everything after that (the last
upsampling, masks, counts) is the Predictor's and the same for all. An engine never falls back to another one.
"""
