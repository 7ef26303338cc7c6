"""Exercise 2: the tangent of a softplus, y = log(1 + e^x), so that the exact gradient can pass through it.

`forward` and `backward` are there. `tangent` and `backward_tangent` say how their results move, to first order, when x
moves along `change`. Fill them in, then run `make exercise N=2`.
"""

import numpy as np


class Softplus:
    """y = log(1 + e^x), a ReLU without a kink."""

    parameters = {}  # noqa: RUF012

    def forward(self, x):
        """Return y."""
        return np.logaddexp(0, x)

    def backward(self, x, dy):
        """Return dx = dy s(x), where s(x) = 1 / (1 + e^-x) is the slope of y."""
        return dy * self.slope(x)

    def slope(self, x):
        """Return s(x), for an x of any size."""
        return np.exp(-np.logaddexp(0, -x))

    def tangent(self, x, change):
        """Return how y moves when x moves along `change`."""
        raise NotImplementedError("tangent: a change of x becomes a change of y by way of the slope")

    def backward_tangent(self, x, dy, change):
        """Return how dx moves when x moves along `change` and dy stays."""
        raise NotImplementedError("backward_tangent: dx = dy s(x), so ask how s moves; s'(x) = s(x) (1 - s(x))")
