"""The arrays of an audit's statistics: float64 [images, classes] and the like."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Number = npt.NDArray[Any]
