"""Every method by name, as a row: its source, its terms in Eq. 1, and its penalty on the weights.

The seven earlier works that the paper unifies (section 2.3) are rows like DataGrad's own, and so are two later ones.
docs/methods.md says which rows are exact instances of DataGrad, and where the paper's argument, with Eq. 5, is loose.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeAlias

from numpy.random import Generator

from nnlite.attacks import PGD, in_unit_ball
from nnlite.backend import Array, Number, get_xp, per_model
from nnlite.datagrad import DirectionSearch, Term
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT
from nnlite.layers import Gradients
from nnlite.lbfgs import minimise
from nnlite.losses import free_kl_divergence, kl_divergence, runner_up
from nnlite.network import Network, Pass
from nnlite.penalties import L1, L2, L2_NORM, LINF, Penalty, contractive_penalty, weight_penalty

DUALS = {"1": LINF, "2": L2_NORM, "inf": L1}  # the norm p of a ball, and the penalty whose gradient is its worst step
SZEGEDY_C, SZEGEDY_ITERATIONS = 0.1, 8  # the weight of the distance, and as many iterations as a training step affords
TRADES_START = 0.001  # the deviation of TRADES's first step: the divergence is flat at the clean image itself

Terms: TypeAlias = tuple[Term, ...]
WeightPenalty: TypeAlias = Callable[[Network, Pass, Number], Gradients]


def no_terms() -> Terms:
    """Return no term: the loss alone."""
    return ()


def penalised(penalty: Penalty, lam: float, phi: float | None) -> Terms:
    """Return DataGrad's term: lambda times a penalty on the input gradient."""
    return (Term(penalty, lam, phi),)


def mixed(direction: Penalty | DirectionSearch, phi: float, alpha: float) -> Terms:
    """Return the term that gives the clean loss the weight alpha, and samples at distance phi the rest."""
    return (Term(direction, (1 - alpha) * phi, phi),)


def samples_only(direction: Penalty | DirectionSearch, phi: float) -> Terms:
    """Return the term whose lambda equals phi: in Eq. 4 that leaves no weight to the clean pass."""
    return (Term(direction, phi, phi),)


def worst_in_ball(phi: float, p: str) -> Terms:
    """Return the term of only the worst samples of an Lp ball, p "1", "2" or "inf"."""
    return samples_only(DUALS[p], phi)


def virtual(lam: float, phi: float) -> Terms:
    """Return the term that adds lambda times a KL divergence at distance phi."""
    return (Term(virtual_adversarial, lam * phi, phi, loss=kl_divergence),)


def projected(phi: float, steps: int) -> Terms:
    """Return the term of only the samples that PGD finds in the L-infinity ball, from a uniform random start."""
    return samples_only(PGDSearch(steps, uniform_start), phi)


def trades(lam: float, phi: float, steps: int) -> Terms:
    """Return the term that adds lambda times KL(p(d) || p(d_hat)), with PGD's d_hat on that divergence."""
    return (Term(PGDSearch(steps, normal_start), lam * phi, phi, loss=free_kl_divergence),)


def any_terms(term: Terms) -> Terms:
    """Return the terms that were given."""
    return term


@dataclass(frozen=True)
class Method:
    """A row: the source of a method, and what it does.

    Arguments:
        source: the paper, or the method in a few words.
        terms: returns the terms of Eq. 1; its parameters are the numbers that the method takes.
        on_weights: gives the gradient of a penalty on the weights, from the net, the clean pass and lambda.
        has_exact: whether the exact gradient is defined, that is whether the terms are penalties and not samples.
    """

    source: str
    terms: Callable[..., Terms] = no_terms
    on_weights: WeightPenalty | None = None
    has_exact: bool = False

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the numbers that `terms` takes."""
        return tuple(inspect.signature(self.terms).parameters)

    @property
    def takes(self) -> tuple[str, ...]:
        """The names of the numbers that the method takes: those of `terms`, and lam for a penalty on the weights."""
        return (*self.parameters, *(["lam"] if self.on_weights else []))


def virtual_adversarial(net: Network, clean: Pass, y: Array, phi: Number, rng: Generator | None) -> Array:
    """Return the unit direction along which the prediction changes most, by one power iteration (Miyato et al. 2015).

    The KL divergence and its gradient are 0 at the clean image, so the direction comes from the second order: H d, with
    the Hessian H of the divergence and a random d. Miyato takes H d by a finite difference; here the tangent gives it
    exactly.
    """
    d = _normal(clean.inputs[0], _given(rng))
    return L2_NORM.gradient(net.tangent(clean, L2_NORM.gradient(d), input_gradient=True).dx)


def nearest_misclassified(net: Network, clean: Pass, y: Array, phi: Number, rng: Generator | None) -> Array:
    """Return the noise that leads to an L-BFGS sample of the most likely wrong class (Szegedy et al. 2013)."""
    x = clean.inputs[0]
    sample, _ = minimise(net, x, runner_up(clean.logits, y), SZEGEDY_C, SZEGEDY_ITERATIONS)
    return sample - x


@dataclass(frozen=True)
class PGDSearch:
    """A search by PGD, up the term's own loss, in the L-infinity ball of radius phi around the clean image.

    After each step pixels are clipped to [0, 1], as in both papers (Madry et al. 2018, Zhang et al. 2019); DataGrad's
    own noise is free. Each step is 2.5 phi / steps long.

    Arguments:
        steps: How many.
        start: (x, phi, rng) -> where the first gradient is taken, of the shape of x, the clean images.
    """

    steps: int
    start: Callable[[Array, Number, Generator], Array]

    def __call__(self, net: Network, clean: Pass, y: Array, phi: Number, rng: Generator | None) -> Array:
        """Return the noise divided by phi, (..., N, D), each entry from -1 to 1."""

        def gradient(point: Array) -> Array:
            return net.run(point, y, task=clean.task, loss=clean.loss_function).dx

        x, radius = clean.inputs[0], per_model(phi, clean.deltas[0])  # deltas have the axis of a stack, x may not
        return (PGD(steps=self.steps).climb(gradient, x, self.start(x, radius, _given(rng)), radius, UNIT) - x) / radius


def uniform_start(x: Array, radius: Number, rng: Generator) -> Array:
    """Return uniform points of the ball, as Madry et al. (2018) start."""
    return x + radius * in_unit_ball("linf", x, rng)


def normal_start(x: Array, radius: Number, rng: Generator) -> Array:
    """Return points beside the images, as Zhang et al. (2019) start, whatever the radius."""
    return x + TRADES_START * _normal(x, rng)


def _normal(like: Array, rng: Generator) -> Array:
    """Return independent normal numbers of the shape of `like`, drawn on the host and moved to its device."""
    return get_xp(like).asarray(rng.standard_normal(like.shape).astype(like.dtype))


def _given(rng: Generator | None) -> Generator:
    if rng is None:
        raise NnliteError("rng: the noise of this method begins at random; give a generator")
    return rng


METHODS = {
    "none": Method("the paper's Rect: no regularisation"),
    "l1": Method("the classical L1 penalty on the weights", on_weights=partial(weight_penalty, L1)),
    "l2": Method("the classical L2 penalty on the weights", on_weights=partial(weight_penalty, L2)),
    "dgl1": Method("DataGrad-L1", partial(penalised, L1), has_exact=True),
    "dgl2": Method("DataGrad-L2", partial(penalised, L2), has_exact=True),
    "dgl2norm": Method("DataGrad with the L2 norm", partial(penalised, L2_NORM), has_exact=True),
    "dglinf": Method("DataGrad with the L-infinity norm", partial(penalised, LINF), has_exact=True),
    "datagrad": Method("DataGrad with any terms of Eq. 1", any_terms),
    "szegedy": Method(
        "Szegedy et al. 2013 (arXiv:1312.6199): L-BFGS samples mixed in", partial(mixed, nearest_misclassified, 1.0)
    ),
    "goodfellow": Method(
        "Goodfellow et al. 2014 (arXiv:1412.6572): fast gradient sign samples mixed in", partial(mixed, L1)
    ),
    "gu-rigazio": Method(
        "Gu and Rigazio 2014 (arXiv:1412.5068): a contractive penalty on each layer", on_weights=contractive_penalty
    ),
    "huang": Method(
        "Huang et al. 2015 (arXiv:1511.03034): only the worst samples of an L2 ball", partial(samples_only, L2_NORM)
    ),
    "miyato": Method(
        "Miyato et al. 2015 (arXiv:1507.00677): virtual adversarial training, a KL divergence added", virtual
    ),
    "lyu": Method(
        "Lyu et al. 2015 (arXiv:1511.06385): only the worst samples of an Lp ball, linearised", worst_in_ball
    ),
    "nokland": Method("Nøkland 2015 (arXiv:1510.04189): fast gradient sign samples only", partial(samples_only, L1)),
    "pgd": Method("Madry et al. 2018 (arXiv:1706.06083): only the samples of projected gradient descent", projected),
    "trades": Method(
        "Zhang et al. 2019 (arXiv:1901.08573): a KL divergence added, at samples of projected gradient descent", trades
    ),
}
