"""Annotated images: data sets, the codings of mask files, augmentation, and the stream of training examples.

The one thing to know: nothing here opens a file. A data set is given a callable `read(key) -> bytes`.
"""
