"""DataGrad: the loss, regularised by penalties on its own input gradient (Eq. 1 to 6 of the paper).

The objective of one example d with label t is

    L_DG = lambda0 L(d) + sum_r lambda_r R_r(J),    J = dL/dd                                 (Eq. 1)

The chain rule turns the weight gradient of R_r(J) into a mixed second derivative times y = dR_r/dJ
(Eq. 2), and that is the derivative of dL/dw along y (Eq. 3). A finite step phi along y gives it from
two ordinary backward passes, at d and at the adversarial example d_hat = d + phi y:

    dR_r/dw ~ (dL/dw at d_hat - dL/dw at d) / phi

Put into Eq. 1, the update is a weighted sum of ordinary weight gradients (Eq. 4):

    (lambda0 - sum_r lambda_r/phi_r) dL/dw at d  +  sum_r (lambda_r/phi_r) dL/dw at d_hat_r

With several tasks on one trunk (Eq. 6) each further loss L_t adds gamma_t L_t; a term may stand on any
task's loss, and its direction comes from that loss alone.

At the paper's phi the step is far from infinitesimal on a ReLU net. What holds at any phi: Eq. 4 is
the exact gradient of (lambda0 - sum_r lambda_r/phi_r) L(d) + sum_r (lambda_r/phi_r) L(d_hat_r) with
every d_hat_r held fixed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnlite.backend import Array, per_model
from nnlite.network import MAIN, Labels, Network, Weighted
from nnlite.penalties import Penalty


@dataclass(frozen=True, eq=False)
class Term:
    """One term lambda_r R_r(J L_r) of Eq. 1, with the step phi_r that takes its derivative.

    lam and phi are numbers, or one for each model of a stack, (S,). task: whose loss L_r is.
    """

    penalty: Penalty
    lam: float | Array
    phi: float | Array
    task: str = MAIN

    @property
    def weight(self) -> float | Array:
        """The weight lambda/phi of the adversarial pass in Eq. 4."""
        return self.lam / self.phi


def clean_weight(terms: Sequence[Term], lam0: float | Array = 1.0) -> float | Array:
    """Return lambda0 - sum_r lambda_r/phi_r, the weight of the clean pass in Eq. 4."""
    return lam0 - sum(term.weight for term in terms)


def weighted_passes(
    net: Network,
    x: Array,
    y: Labels,
    terms: Sequence[Term] = (),
    lam0: float | Array = 1.0,
    gamma: Mapping[str, float | Array] | None = None,
) -> list[Weighted]:
    """Return Eq. 4 as pairs (weight, pass), the clean pass first: `net.gradients` of them is the update.

    x: (..., N, D); y: labels (..., N), or those of each task by name. gamma: the weight of each further
    task's loss (Eq. 6). The direction of a term comes from the loss of its own task alone. Without a term
    no input gradient is formed.
    """
    labels = y if isinstance(y, Mapping) else {MAIN: y}
    inputs = net.forward(x)
    passes: list[Weighted] = []
    for task, weight in {MAIN: lam0, **(gamma or {})}.items():
        own = [term for term in terms if term.task == task]
        clean = net.backward(inputs, labels[task], task=task, input_gradient=bool(own))
        passes.append((clean_weight(own, weight), clean))
        for term in own:
            direction = term.penalty.gradient(clean.dx)
            adversarial = x + per_model(term.phi, direction) * direction
            shifted = net.run(adversarial, labels[task], task=task, input_gradient=False)
            passes.append((term.weight, shifted))
    return passes
