"""Weights from elsewhere: readers of Caffe and PyTorch files, and how their names map to those of our networks.

The one thing to know: nothing in a file is executed. `importing.import_weights` is the way in.
"""
