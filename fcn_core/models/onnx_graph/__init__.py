"""Somebody's network as an ONNX graph: what it is called in a bundle, and what a graph may consist of.

`architecture` says how it is used. `check` reads the file, only ever in a process of its own
(`fcn_core.inference.onnx_trial`): it comes from a stranger, and parsing alone may take any amount of memory.
"""
