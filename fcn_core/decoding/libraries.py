"""imagecodecs and tifffile, loaded when an image needs them: that takes a while, and most images are JPEGs.

Both log what they think of a file, and go on. What matters is an error here; the rest is not for a user's terminal.
"""

import functools
import logging
from types import ModuleType


@functools.cache
def imagecodecs() -> ModuleType:
    import imagecodecs

    logging.getLogger("imagecodecs").setLevel(logging.CRITICAL + 1)
    return imagecodecs


@functools.cache
def tifffile() -> ModuleType:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    return tifffile
