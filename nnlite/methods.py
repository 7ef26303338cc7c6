"""Every method by name, as a row: its source, its terms in Eq. 1, and its penalty on the weights.

The seven earlier works that the paper unifies (section 2.3) are rows like DataGrad's own. Where a row is an
instance of DataGrad, and where the paper's argument is loose, docs/methods.md says.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from nnlite.backend import Array, get_xp
from nnlite.datagrad import Term, objectives
from nnlite.errors import NnliteError
from nnlite.layers import Parameters
from nnlite.lbfgs import minimise, runner_up
from nnlite.losses import kl_divergence
from nnlite.network import MAIN, Network, Pass
from nnlite.penalties import L1, L2, L2_NORM, LINF, PENALTIES, add_contractive_penalty, add_weight_penalty

GRADIENTS = ("finite", "exact")
DUALS = {"1": LINF, "2": L2_NORM, "inf": L1}  # the norm p of a ball, and the penalty whose gradient is its worst step
USUAL_ALPHA = 0.5  # Goodfellow et al. took it in all experiments
SZEGEDY_C, SZEGEDY_ITERATIONS = 0.1, 8  # the weight of the distance, and the search that a training step can afford

WeightPenalty: TypeAlias = Callable[[Iterable[Parameters], Network, Pass, float | Array], Iterable[Parameters]]

EXAMPLES = {"lam": 0.01, "phi": 0.1, "alpha": USUAL_ALPHA, "p": "inf", "term": "l1,0.01,0.1"}


@dataclass(frozen=True)
class Method:
    """A row: the source of a method, and what it does.

    terms: makes the terms of Eq. 1; its parameters are options. on_weights: adds the gradient of a penalty on the
    weights, from the gradients, the net, the clean pass and lambda. has_exact: whether --gradient exact has a
    meaning, that is whether its terms are penalties and not samples.
    """

    source: str
    terms: Callable[..., tuple[Term, ...]] = lambda: ()
    on_weights: WeightPenalty | None = None
    has_exact: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """The options it takes: the parameters of `terms`, and lam for a penalty on the weights."""
        return (*inspect.signature(self.terms).parameters, *(["lam"] if self.on_weights else []))


def virtual_adversarial(net: Network, clean: Pass, y: Array, rng: np.random.Generator | None) -> Array:
    """Return the unit direction along which the prediction changes most, by one power iteration (Miyato et al. 2015).

    The KL divergence and its gradient are 0 at the clean image, so the first order says nothing, and the direction
    comes from the Hessian H of the divergence: H d for a random d. Miyato takes H d by a finite difference; here it is
    exact, by the tangent.
    """
    if rng is None:
        raise NnliteError("rng: virtual adversarial noise begins at random; give a generator")
    x = clean.inputs[0]
    d = get_xp(x).asarray(rng.standard_normal(x.shape).astype(x.dtype))
    return L2_NORM.gradient(net.tangent(clean, L2_NORM.gradient(d), input_gradient=True).dx)


def nearest_misclassified(net: Network, clean: Pass, y: Array, rng: np.random.Generator | None) -> Array:
    """Return the whole way to an L-BFGS sample of the most likely wrong class (Szegedy et al. 2013)."""
    x = clean.inputs[0]
    sample, _ = minimise(net, x, runner_up(clean.logits, y), SZEGEDY_C, SZEGEDY_ITERATIONS)
    return sample - x


def parse_term(text: str) -> Term:
    """Read a term of Eq. 1, penalty, lambda, phi or exact, and task, as l1,0.01,0.1 or l2,0.01,exact,rotation."""
    name, *numbers = text.split(",")
    try:
        lam, phi, task = (*numbers, MAIN) if len(numbers) == 2 else numbers
        term = Term(PENALTIES[name], float(lam), None if phi == "exact" else float(phi), task)
    except (ValueError, KeyError) as error:
        raise NnliteError(
            f"term: expected PENALTY,LAMBDA,PHI or PENALTY,LAMBDA,PHI,TASK, with one of {', '.join(PENALTIES)} "
            f"and a phi or the word exact, found {text!r}"
        ) from error
    _check_numbers(lam=term.lam, phi=term.phi)
    return term


def _check_numbers(lam: Any, phi: Any) -> None:
    if lam is not None and not (math.isfinite(lam) and lam >= 0):
        raise NnliteError(f"lam: expected a finite number of at least 0, found {lam}")
    if phi is not None and not (math.isfinite(phi) and phi > 0):
        raise NnliteError(f"phi: expected a finite number above 0, found {phi}")


# In Eq. 4 the adversarial pass has the weight lambda/phi and the clean one the rest: lambda = phi leaves it nothing.
METHODS = {
    "none": Method("the paper's Rect: no regularisation"),
    "l1": Method("the classical L1 penalty on the weights", on_weights=partial(add_weight_penalty, L1)),
    "l2": Method("the classical L2 penalty on the weights", on_weights=partial(add_weight_penalty, L2)),
    "dgl1": Method("DataGrad-L1", lambda lam, phi: (Term(L1, lam, phi),), has_exact=True),
    "dgl2": Method("DataGrad-L2", lambda lam, phi: (Term(L2, lam, phi),), has_exact=True),
    "dgl2norm": Method("DataGrad with the L2 norm", lambda lam, phi: (Term(L2_NORM, lam, phi),), has_exact=True),
    "dglinf": Method("DataGrad with the L-infinity norm", lambda lam, phi: (Term(LINF, lam, phi),), has_exact=True),
    "datagrad": Method("DataGrad with any terms of Eq. 1", lambda term: tuple(map(parse_term, term))),
    "szegedy": Method(
        "Szegedy et al. 2013 (arXiv:1312.6199): L-BFGS samples mixed in",
        lambda alpha: (Term(nearest_misclassified, 1 - alpha, 1.0),),
    ),
    "goodfellow": Method(
        "Goodfellow et al. 2014 (arXiv:1412.6572): fast gradient sign samples mixed in",
        lambda phi, alpha: (Term(L1, (1 - alpha) * phi, phi),),
    ),
    "gu-rigazio": Method(
        "Gu and Rigazio 2014 (arXiv:1412.5068): a contractive penalty on each layer",
        on_weights=add_contractive_penalty,
    ),
    "huang": Method(
        "Huang et al. 2015 (arXiv:1511.03034): only the worst samples of an L2 ball",
        lambda phi: (Term(L2_NORM, phi, phi),),
    ),
    "miyato": Method(
        "Miyato et al. 2015 (arXiv:1507.00677): virtual adversarial training, a KL divergence added",
        lambda lam, phi: (Term(virtual_adversarial, lam * phi, phi, loss=kl_divergence),),
    ),
    "lyu": Method(
        "Lyu et al. 2015 (arXiv:1511.06385): only the worst samples of an Lp ball, linearised",
        lambda phi, p: (Term(DUALS[p], phi, phi),),
    ),
    "nokland": Method(
        "Nøkland 2015 (arXiv:1510.04189): fast gradient sign samples only",
        lambda phi: (Term(L1, phi, phi),),
    ),
}


@dataclass(frozen=True)
class Regularisation:
    """A method with its numbers; None for those that it does not take.

    lam: weight of the penalty. phi: step of the finite difference, that is the size of the noise. alpha: weight of
    the clean loss, the adversarial one has the rest. p: norm of the noise, "1", "2" or "inf". term: terms of Eq. 1,
    each as `parse_term` reads it. gradient: "finite", or "exact", which takes no step. NnliteError for a number that
    is missing, not used or out of its range.
    """

    reg: str = "none"
    lam: float | None = None
    phi: float | None = None
    alpha: float | None = None
    p: str | None = None
    term: tuple[str, ...] | None = None
    gradient: str = "finite"

    def __post_init__(self) -> None:
        for name, known in {"reg": METHODS, "gradient": GRADIENTS}.items():
            if getattr(self, name) not in known:
                raise NnliteError(f"{name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}")
        if self.gradient == "exact" and not self.method.has_exact:
            able = ", ".join(name for name, method in METHODS.items() if method.has_exact)
            raise NnliteError(f"gradient: method {self.reg} has no penalty on the gradient; exact is for {able}")
        takes = [name for name in self.method.takes if (name, self.gradient) != ("phi", "exact")]
        for name in EXAMPLES:
            value = getattr(self, name)
            if value is None and name in takes:
                example = " ".join(f"--{option} {EXAMPLES[option]}" for option in takes)
                raise NnliteError(f"{name}: method {self.reg} needs it; give for example {example}")
            if value is not None and name not in takes:
                why = (
                    "the exact gradient takes no step"
                    if name in self.method.takes
                    else f"method {self.reg} does not use it"
                )
                raise NnliteError(f"{name}: {why}; leave it out")
        _check_numbers(self.lam, self.phi)
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise NnliteError(f"alpha: expected a number from 0 to 1, found {self.alpha}")
        if self.p is not None and self.p not in DUALS:
            raise NnliteError(f"p: expected one of {', '.join(DUALS)}, found {self.p!r}")
        for text in self.term or ():
            parse_term(text)

    @property
    def method(self) -> Method:
        """The row of METHODS that `reg` names."""
        return METHODS[self.reg]

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of Eq. 1."""
        make = self.method.terms
        return make(**{name: getattr(self, name) for name in inspect.signature(make).parameters})

    @property
    def slug(self) -> str:
        """The name of a run without one of its own, such as dgl1-lam0.01-phi0.1 or dgl1-exact-lam0.01."""
        given = {name: getattr(self, name) for name in self.method.takes}
        numbers = [
            f"{name}{value if isinstance(value, str) else format(value, 'g')}"
            for name, value in given.items()
            if value is not None and name != "term"
        ]
        terms = [text.replace(",", "-") for text in self.term or ()]
        stem = "rect" if self.reg == "none" else self.reg
        return "-".join([stem, *(["exact"] if self.gradient == "exact" else []), *numbers, *terms])

    def mix(self) -> tuple[str, str | None]:
        """Say what the numbers mean in Eq. 4: a line for the user, and a warning or None."""
        terms = self.terms
        if not terms:
            return f"{self.method.source}; plain gradients, no adversarial pass", None
        clean = round(float(objectives(terms)[0].weight), 12)  # 1 - 0.1 / 0.1 is 0, and reads so
        kinds = {True: "exact penalty", False: "adversarial"}
        parts = [f"{term.weight:g} {kinds[term.phi is None]}" for term in terms]
        words = f"{self.method.source}; Eq. 4 mixes {' + '.join([f'{clean:g} clean', *parts])} gradient"
        if self.method.has_exact and clean == 0:
            words += ": adversarial samples only, as Nøkland 2015, Lyu et al. 2015, Huang et al. 2015"
        elif self.reg == "dgl1" and 0 < clean < 1:
            words += f": Goodfellow et al. 2014 with alpha = {clean:g}"
        smallest = min((float(term.phi) for term in terms if term.phi is not None), default=1.0)
        warning = None
        if clean < 0:
            warning = f"the clean gradient has the negative weight {clean:g}: lambda is larger than phi"
        elif smallest <= 1e-4:
            warning = f"phi = {smallest:g} is so small that float32 loses digits of the finite difference"
        return words, warning
