"""DataGrad: the loss, regularised by penalties on its own input gradient (Eq. 1 to 6 of the paper).

The objective of one example d with label t is

    L_DG = lambda0 L(d) + sum_r lambda_r R_r(J),    J = dL/dd

and Eq. 1 takes its gradient in w. The chain rule turns the weight gradient of R_r(J) into a mixed second
derivative times y = dR_r/dJ (Eq. 2), and that is the derivative of dL/dw along y (Eq. 3). A finite step phi along y
gives it from two ordinary backward passes, at d and at the adversarial example d_hat = d + phi y:

    dR_r/dw ~ (dL/dw at d_hat - dL/dw at d) / phi

Put into Eq. 1, the update is a weighted sum of ordinary weight gradients (Eq. 4):

    (lambda0 - sum_r lambda_r/phi_r) dL/dw at d  +  sum_r (lambda_r/phi_r) dL/dw at d_hat_r

With several tasks on one trunk (Eq. 6) each auxiliary loss L_t adds gamma_t L_t; a term may stand on any
task's loss, and its direction comes from that loss alone.

At the paper's phi the step is far from infinitesimal (docs/exact.md). What holds at any phi: Eq. 4 is
the exact gradient of (lambda0 - sum_r lambda_r/phi_r) L(d) + sum_r (lambda_r/phi_r) L(d_hat_r) with
every d_hat_r held fixed. Without a phi the derivative of Eq. 3 itself is taken, by the tangent of the clean
pass in place of the pass at d_hat: the authors approximated it, at the same price.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from numpy.random import Generator

from nnlite.backend import Array, Number, per_model
from nnlite.errors import NnliteError
from nnlite.inputs import check_images
from nnlite.losses import Loss, softmax_cross_entropy
from nnlite.network import MAIN, Labels, Network, Pass, Weighted
from nnlite.penalties import Penalty

DirectionSearch: TypeAlias = Callable[[Network, Pass, Array, Number, Generator | None], Array]


@dataclass(frozen=True, eq=False)
class Term:
    """One term lambda_r R_r(J L_r) of Eq. 1, with the step phi_r that takes its derivative.

    lam and phi are numbers, or one for each model of a stack, (S,).

    Arguments:
        penalty: R_r; its gradient at J is the direction y of Eq. 3. Or a search that finds the direction (..., N, D) by
            other means, from the net, the clean pass, its labels, phi and a generator; phi is the size of the noise.
        lam: lambda_r.
        phi: The step; None for the exact derivative.
        task: Whose loss L_r is.
        loss: L_r. One with a target of its own takes the net's clean logits for labels.

    NnliteError where the exact derivative is asked of a search, or of a loss without a tangent.
    """

    penalty: Penalty | DirectionSearch
    lam: Number
    phi: Number | None
    task: str = MAIN
    loss: Loss = softmax_cross_entropy

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise NnliteError(f"loss: expected a Loss, found {self.loss!r}; make it one: Loss(name, function, tangent)")
        if self.phi is None and not isinstance(self.penalty, Penalty):
            raise NnliteError("phi: only a penalty has an exact derivative; give the size of the noise")
        if self.phi is None and self.loss.tangent is None:
            raise NnliteError(f"phi: {self.loss.name} has no tangent, which the exact derivative needs; give a step")

    @property
    def weight(self) -> Number:
        """The weight of the second pass in Eq. 4: lambda/phi at d_hat; lambda for the exact derivative."""
        return self.lam if self.phi is None else self.lam / self.phi

    def direction(self, net: Network, clean: Pass, y: Array, rng: Generator | None) -> Array:
        """Return y = dR/dJ of Eq. 3 at the clean pass, or what the search finds there, (..., N, D)."""
        if isinstance(self.penalty, Penalty):
            return self.penalty.gradient(clean.dx)
        return self.penalty(net, clean, y, cast(Number, self.phi), rng)


@dataclass(frozen=True, eq=False)
class Objective:
    """One loss of one task with the terms that regularise it: lambda0 L + sum_r lambda_r R_r(J L), Eq. 1.

    They share a clean pass. lam0 is gamma for the loss of an auxiliary task (Eq. 6), and 0 for a loss that stands in
    terms only.
    """

    task: str
    loss: Loss
    lam0: Number
    terms: tuple[Term, ...]

    @property
    def weight(self) -> Number:
        """The weight lambda0 - sum_r lambda_r/phi_r of the clean pass in Eq. 4; exact terms take nothing off."""
        return self.lam0 - sum(term.weight for term in self.terms if term.phi is not None)


def objectives(terms: Sequence[Term], lam0: Number = 1.0, gamma: Mapping[str, Number] | None = None) -> list[Objective]:
    """Return the objective of each task and loss, the main one first.

    Arguments:
        terms: Those of all objectives.
        lam0: lambda0, the weight of the main loss.
        gamma: The weight of each auxiliary task's loss (Eq. 6).
    """
    weights = {(task, softmax_cross_entropy): weight for task, weight in {MAIN: lam0, **(gamma or {})}.items()}
    weights |= {(term.task, term.loss): 0.0 for term in terms if (term.task, term.loss) not in weights}
    own = {of: tuple(term for term in terms if (term.task, term.loss) == of) for of in weights}
    return [Objective(*of, weight, own[of]) for of, weight in weights.items()]


def weighted_passes(
    net: Network,
    x: Array,
    y: Labels,
    terms: Sequence[Term] = (),
    lam0: Number = 1.0,
    gamma: Mapping[str, Number] | None = None,
    rng: Generator | None = None,
    *,
    checked: bool = False,
) -> list[Weighted]:
    """Return Eq. 4 as pairs (weight, pass), the clean pass first: `net.gradients` of them is the update.

    The direction of a term comes from its own loss alone. A loss L_r other than L_0 has a clean pass of its own. Where
    its target moves with the weights, as the clean output of TRADES does, L_r at d_hat has two passes: one at d_hat,
    and one at d for what goes through the target. Without a term no input gradient is formed.

    Arguments:
        net: One model, or a stack.
        x: (..., N, D).
        y: Labels (..., N), or those of each task by name.
        terms: Those of Eq. 1.
        lam0: lambda0, the weight of the main loss.
        gamma: The weight of each auxiliary task's loss (Eq. 6).
        rng: For searches that draw.
        checked: Whether x and y have been looked at before, as those of a Dataset are when it is made.

    NnliteError for images or labels that do not fit, and for a phi so small that x + phi y rounds to x where x is 1;
    not looked for where it is one for each model, which may be on a GPU.
    """
    labels = y if isinstance(y, Mapping) else {MAIN: y}
    if not checked:
        check_images(x, net.features)
    seen = net.forward(x)
    passes: list[Weighted] = []
    for one in objectives(terms, lam0, gamma):
        target = net.chain(one.task)[-1].forward(seen.inputs[-1]) if one.loss.own_target else labels[one.task]
        if not checked:
            net.check_labels(x, target, one.task, one.loss)
        needs_dx = any(isinstance(term.penalty, Penalty) for term in one.terms)
        clean = net.backward(seen, target, one.task, one.loss, needs_dx)
        passes.append((one.weight, clean))
        for term in one.terms:
            direction = term.direction(net, clean, target, rng)
            if term.phi is None:
                passes.append((term.weight, net.tangent(clean, direction)))
            else:
                if isinstance(term.phi, (int, float, np.generic)) and abs(term.phi) <= np.finfo(x.dtype).eps / 2:
                    raise NnliteError(f"phi: expected a step that moves a pixel of 1 in {x.dtype}, found {term.phi}")
                adversarial = x + per_model(term.phi, direction) * direction
                shifted = net.backward(net.forward(adversarial), target, one.task, one.loss, input_gradient=False)
                passes.append((term.weight, shifted))
                if one.loss.of_target is not None:
                    through = net.backward(seen, shifted.logits, one.task, one.loss.of_target, input_gradient=False)
                    passes.append((term.weight, through))
    return passes
