"""DataGrad: the loss, regularised by penalties on its own input gradient (Eq. 1 to 4 of the paper).

The objective of one example d with label t is

    L_DG = lambda0 L(d) + sum_r lambda_r R_r(J),    J = dL/dd                                 (Eq. 1)

The chain rule turns the weight gradient of R_r(J) into a mixed second derivative times y = dR_r/dJ
(Eq. 2), and that is the derivative of dL/dw along y (Eq. 3). A finite step phi along y gives it from
two ordinary backward passes, at d and at the adversarial example d_hat = d + phi y:

    dR_r/dw ~ (dL/dw at d_hat - dL/dw at d) / phi

Put into Eq. 1, the update is a weighted sum of ordinary weight gradients (Eq. 4):

    (lambda0 - sum_r lambda_r/phi_r) dL/dw at d  +  sum_r (lambda_r/phi_r) dL/dw at d_hat_r

At the paper's phi the step is far from infinitesimal on a ReLU net. What holds at any phi: Eq. 4 is
the exact gradient of (lambda0 - sum_r lambda_r/phi_r) L(d) + sum_r (lambda_r/phi_r) L(d_hat_r) with
every d_hat_r held fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nnlite.backend import Array, per_model
from nnlite.network import Network, Pass
from nnlite.penalties import Penalty


@dataclass(frozen=True, eq=False)
class Term:
    """One term lambda_r R_r(J) of Eq. 1, with the step phi_r that takes its derivative.

    lam and phi are numbers, or one for each model of a stack, (S,).
    """

    penalty: Penalty
    lam: float | Array
    phi: float | Array

    @property
    def weight(self) -> float | Array:
        """The weight lambda/phi of the adversarial pass in Eq. 4."""
        return self.lam / self.phi


def clean_weight(terms: Sequence[Term], lam0: float | Array = 1.0) -> float | Array:
    """Return lambda0 - sum_r lambda_r/phi_r, the weight of the clean pass in Eq. 4."""
    return lam0 - sum(term.weight for term in terms)


def weighted_passes(
    net: Network, x: Array, y: Array, terms: Sequence[Term] = (), lam0: float | Array = 1.0
) -> list[tuple[float | Array, Pass]]:
    """Return Eq. 4 as pairs (weight, pass), the clean pass first: `net.gradients` of them is the update.

    x: (..., N, D); y: labels (..., N). Without terms this is plain training, and the input gradient is
    not formed.
    """
    clean = net.run(x, y, input_gradient=bool(terms))
    passes = [(clean_weight(terms, lam0), clean)]
    for term in terms:
        direction = term.penalty.gradient(clean.dx)
        adversarial = x + per_model(term.phi, direction) * direction
        passes.append((term.weight, net.run(adversarial, y, input_gradient=False)))
    return passes
