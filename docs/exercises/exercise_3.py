"""Exercise 3: break a gradient by 0.1 %, and find the check that sees it.

A net whose gradient is off by a tenth of a percent trains as well as any, so no curve of accuracies gives it away.
Write such a layer, and then a function that tells nets with a fault from sound ones. The fault may be in the gradient
of the weights or of the biases, in the error carried back to the inputs, or in the tangent; some nets have a ReLU close
to its kink, and are sound. `nnlite.gradcheck` has what you need. Then run `make exercise N=3`.
"""

from nnlite import Dense


class Broken(Dense):
    """A Dense layer whose weight gradient is too large by 0.1 %; everything else is as it should be."""

    def gradients(self, x, dy, change=None):
        """Return dW and db as Dense does, dW times 1.001."""
        raise NotImplementedError("Broken.gradients: take those of Dense, super().gradients(...), and spoil W")


def sees(net, x, y):
    """Return whether a fault is found in the derivatives of a float64 net, at images x (N, D) with labels y (N,)."""
    raise NotImplementedError("sees: return True where a check of nnlite.gradcheck does not pass")
