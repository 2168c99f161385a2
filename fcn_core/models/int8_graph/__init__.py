"""The quantized graph of an int8 bundle, checked before OpenVINO sees it.

OpenVINO's reader is native code that trusts its input: a changed graph may crash the process or ask for hundreds of
gigabytes. `check.check_graph` refuses what `fcn model quantize` never writes; `fcn_core.inference.graph_trial` compiles
the rest once in a process of its own, within limits.
"""
