"""Exercise 1: a penalty between L1 and L2, R(a) = sum_s |a_s|^1.5.

Its gradient is what DataGrad moves an image along: between a step of one size everywhere (L1) and one that follows the
gradient (L2). Fill in the two functions, then run `make exercise N=1`.
"""

from nnlite import Penalty


def value(a):
    """Return R of each row: a is (..., N, D), the result (..., N)."""
    raise NotImplementedError("value: return the sum of |a_s|^1.5 over the last axis")


def gradient(a):
    """Return dR/da, of the shape and dtype of a; 0 where a is 0."""
    raise NotImplementedError("gradient: differentiate |a_s|^1.5 by hand, and mind the sign of a_s")


POWER = Penalty("power", value, gradient)
