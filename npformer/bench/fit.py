"""Growth of a cost: the exponent of the power law that best fits some measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def power_law(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Return the factor a and the exponent p of cost = a * size^p, by least squares of the logarithms.

    An exponent of 1 is linear growth, 2 quadratic. Needs two different sizes; sizes and costs above 0.
    """
    exponent, offset = np.polyfit(np.log(sizes), np.log(costs), 1)
    return float(np.exp(offset)), float(exponent)
