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
every d_hat_r held fixed. Without a phi the derivative of Eq. 3 itself is taken, by the tangent of the clean
pass in place of the pass at d_hat: the authors approximated it, at the same price.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nnlite.backend import Array, per_model
from nnlite.errors import NnliteError
from nnlite.losses import Loss, kl_divergence, softmax_cross_entropy
from nnlite.network import MAIN, Labels, Network, Pass, Weighted
from nnlite.penalties import Penalty

Search: TypeAlias = Callable[[Network, Pass, Array, np.random.Generator | None], Array]


@dataclass(frozen=True, eq=False)
class Term:
    """One term lambda_r R_r(J L_r) of Eq. 1, with the step phi_r that takes its derivative.

    penalty: R_r; its gradient at J is the direction. Or a search that finds the direction (..., N, D) by
    other means, from the net, the clean pass, its labels and a generator; then phi is the size of the noise only.
    lam and phi are numbers, or one for each model of a stack, (S,). phi None: the exact derivative.
    task: whose labels L_r takes. loss: L_r; kl_divergence takes the net's own clean logits as labels.
    """

    penalty: Penalty | Search
    lam: float | Array
    phi: float | Array | None
    task: str = MAIN
    loss: Loss = softmax_cross_entropy

    def __post_init__(self) -> None:
        if self.phi is None and not isinstance(self.penalty, Penalty):
            raise NnliteError("phi: only a penalty has an exact derivative; give the size of the noise")

    @property
    def weight(self) -> float | Array:
        """The weight of the second pass: lambda/phi at d_hat in Eq. 4, lambda for the exact derivative."""
        return self.lam if self.phi is None else self.lam / self.phi

    def direction(self, net: Network, clean: Pass, y: Array, rng: np.random.Generator | None) -> Array:
        """Return y = dR/dJ at the clean pass, or what the search finds there, (..., N, D)."""
        if isinstance(self.penalty, Penalty):
            return self.penalty.gradient(clean.dx)
        return self.penalty(net, clean, y, rng)


def clean_weight(terms: Sequence[Term], lam0: float | Array = 1.0) -> float | Array:
    """Return lambda0 - sum_r lambda_r/phi_r, the weight of the clean pass in Eq. 4; exact terms take nothing off."""
    return lam0 - sum(term.weight for term in terms if term.phi is not None)


def clean_weights(
    terms: Sequence[Term], lam0: float | Array = 1.0, gamma: Mapping[str, float | Array] | None = None
) -> dict[tuple[str, Loss], float | Array]:
    """Return the weight of each clean pass by its task and loss, the main one first: each term needs one of its own.

    gamma: the weight of each further task's loss.
    """
    weights: dict[tuple[str, Loss], float | Array] = {(MAIN, softmax_cross_entropy): lam0}
    weights |= {(task, softmax_cross_entropy): weight for task, weight in (gamma or {}).items()}
    weights |= {(term.task, term.loss): 0.0 for term in terms if (term.task, term.loss) not in weights}
    return {of: clean_weight([term for term in terms if (term.task, term.loss) == of], weights[of]) for of in weights}


def weighted_passes(
    net: Network,
    x: Array,
    y: Labels,
    terms: Sequence[Term] = (),
    lam0: float | Array = 1.0,
    gamma: Mapping[str, float | Array] | None = None,
    rng: np.random.Generator | None = None,
) -> list[Weighted]:
    """Return Eq. 4 as pairs (weight, pass), the clean pass first: `net.gradients` of them is the update.

    x: (..., N, D); y: labels (..., N), or those of each task by name. gamma: the weight of each further
    task's loss (Eq. 6). rng: for searches that draw. The direction of a term comes from its own loss alone. A
    loss L_r other than L_0 has a clean pass of its own. Without a term no input gradient is formed.
    """
    labels = y if isinstance(y, Mapping) else {MAIN: y}
    inputs = net.forward(x)
    passes: list[Weighted] = []
    for (task, loss), weight in clean_weights(terms, lam0, gamma).items():
        own = [term for term in terms if (term.task, term.loss) == (task, loss)]
        target = net.chain(task)[-1].forward(inputs[-1]) if loss is kl_divergence else labels[task]
        clean = net.backward(
            inputs, target, task=task, loss=loss, input_gradient=any(isinstance(term.penalty, Penalty) for term in own)
        )
        passes.append((weight, clean))
        for term in own:
            direction = term.direction(net, clean, target, rng)
            if term.phi is None:
                passes.append((term.weight, net.tangent(clean, direction)))
            else:
                adversarial = x + per_model(term.phi, direction) * direction
                shifted = net.run(adversarial, target, task=task, loss=loss, input_gradient=False)
                passes.append((term.weight, shifted))
    return passes
