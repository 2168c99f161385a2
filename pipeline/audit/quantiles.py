"""Student's t distribution, without SciPy: how many standard errors an interval of a small sample is wide."""

import math
from statistics import NormalDist

import numpy as np

from pipeline.audit.arrays import Array

LEVEL = 0.95
"""What every interval of an audit claims: in 95 of 100 audits it holds the truth."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_HALVINGS = 45
_LARGEST = 13.0
"""Above the quantile of one degree of freedom, the largest there is."""

_NORMAL = 1e6
"""More degrees of freedom are as good as infinitely many."""


def normal_quantile() -> float:
    """Half the width of a normal interval in standard errors: 1.96."""
    return NormalDist().inv_cdf(0.5 + LEVEL / 2)


def t_quantiles(freedom: Array) -> Array:
    """The same of Student's t, float64 [any], for degrees of freedom of at least 1 each, not necessarily whole.

    Accurate to 1e-8. With t = sqrt(f) tan(a) the distribution is an integral of cos(a) ** (f - 1), which is smooth.
    """
    limited = np.minimum(freedom, _NORMAL)
    constant = np.array([math.exp(math.lgamma((f + 1) / 2) - math.lgamma(f / 2)) for f in limited.ravel().tolist()])
    constant = constant.reshape(limited.shape) / math.sqrt(math.pi)
    low, high = np.zeros(limited.shape), np.arctan(_LARGEST / np.sqrt(limited))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        at = middle[..., None] * (_NODES + 1) / 2
        inside = constant * middle * (_WEIGHTS * np.cos(at) ** (limited[..., None] - 1)).sum(axis=-1)
        low, high = np.where(inside < LEVEL, middle, low), np.where(inside < LEVEL, high, middle)
    found = np.sqrt(limited) * np.tan((low + high) / 2)
    return np.where(freedom > _NORMAL, normal_quantile(), found)
