"""Every method by name, as a row: what it takes, its terms in Eq. 1, its penalty on the weights, and its source.

The seven earlier works that the paper unifies (section 2.3) are rows like DataGrad's own. Where a row is an
instance of DataGrad, and where the paper's argument is loose, docs/methods.md says.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nnlite.backend import Array, get_xp
from nnlite.datagrad import Term, clean_weight
from nnlite.errors import NnliteError
from nnlite.layers import Parameters
from nnlite.lbfgs import minimise, runner_up
from nnlite.losses import kl_divergence
from nnlite.network import MAIN, Network, Pass
from nnlite.penalties import L1, L2, L2_NORM, LINF, Penalty, add_contractive_penalty, add_weight_penalty

GRADIENTS = ("finite", "exact")
DUALS = {"1": LINF, "2": L2_NORM, "inf": L1}  # the norm p of a ball, and the penalty whose gradient is its worst step
USUAL_ALPHA = 0.5  # Goodfellow et al. took it in all experiments
SZEGEDY_C, SZEGEDY_ITERATIONS = 0.1, 8  # the weight of the distance, and the search that a training step can afford

PENALTIES = {penalty.name: penalty for penalty in (L1, L2, L2_NORM, LINF)}

_EXAMPLES = {"lam": 0.01, "phi": 0.1, "alpha": USUAL_ALPHA, "p": "inf", "term": "l1,0.01,0.1"}


@dataclass(frozen=True)
class Method:
    """A row: its name on the command line, the stem of its runs' names, its source, and the options it takes.

    terms: makes the terms of Eq. 1 from those options. on_weights: adds the gradient of a penalty on the weights,
    from the gradients, the net, the clean pass and lambda. has_exact: whether --gradient exact has a meaning, that
    is whether its terms are penalties and not samples.
    """

    name: str
    stem: str
    source: str
    takes: tuple[str, ...] = ()
    terms: Callable[..., tuple[Term, ...]] | None = None
    on_weights: Callable[[list[Parameters], Network, Pass, float], list[Parameters]] | None = None
    has_exact: bool = False


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


def _penalised(penalty: Penalty) -> Callable[..., tuple[Term, ...]]:
    """DataGrad itself: lambda R(J)."""
    return lambda lam, phi: (Term(penalty, lam, phi),)


def _mixed(penalty: Penalty) -> Callable[..., tuple[Term, ...]]:
    """Weight alpha on the clean sample and the rest on the adversarial one: lambda/phi = 1 - alpha in Eq. 4."""
    return lambda phi, alpha: (Term(penalty, (1 - alpha) * phi, phi),)


def _samples_only(penalty: Penalty) -> Callable[..., tuple[Term, ...]]:
    """Nothing on the clean sample: lambda = phi in Eq. 4."""
    return lambda phi: (Term(penalty, phi, phi),)


_LAM, _DATAGRAD = ("lam",), ("lam", "phi")

METHODS = {
    method.name: method
    for method in (
        Method("none", "rect", "the paper's Rect: no regularisation"),
        Method("l1", "l1", "the classical L1 penalty on the weights", _LAM, None, partial(add_weight_penalty, L1)),
        Method("l2", "l2", "the classical L2 penalty on the weights", _LAM, None, partial(add_weight_penalty, L2)),
        Method("dgl1", "dgl1", "DataGrad-L1", _DATAGRAD, _penalised(L1), has_exact=True),
        Method("dgl2", "dgl2", "DataGrad-L2", _DATAGRAD, _penalised(L2), has_exact=True),
        Method("dgl2norm", "dgl2norm", "DataGrad with the L2 norm", _DATAGRAD, _penalised(L2_NORM), has_exact=True),
        Method("dglinf", "dglinf", "DataGrad with the L-infinity norm", _DATAGRAD, _penalised(LINF), has_exact=True),
        Method(
            "datagrad",
            "datagrad",
            "DataGrad with any terms of Eq. 1",
            ("term",),
            lambda term: tuple(map(parse_term, term)),
        ),
        Method(
            "szegedy",
            "szegedy",
            "Szegedy et al. 2013 (arXiv:1312.6199): L-BFGS samples mixed in",
            ("alpha",),
            lambda alpha: (Term(nearest_misclassified, 1 - alpha, 1.0),),
        ),
        Method(
            "goodfellow",
            "goodfellow",
            "Goodfellow et al. 2014 (arXiv:1412.6572): fast gradient sign samples mixed in",
            ("phi", "alpha"),
            _mixed(L1),
        ),
        Method(
            "gu-rigazio",
            "gu-rigazio",
            "Gu and Rigazio 2014 (arXiv:1412.5068): a contractive penalty on each layer",
            _LAM,
            None,
            add_contractive_penalty,
        ),
        Method(
            "huang",
            "huang",
            "Huang et al. 2015 (arXiv:1511.03034): only the worst samples of an L2 ball",
            ("phi",),
            _samples_only(L2_NORM),
        ),
        Method(
            "miyato",
            "miyato",
            "Miyato et al. 2015 (arXiv:1507.00677): virtual adversarial training, a KL divergence added",
            _DATAGRAD,
            lambda lam, phi: (Term(virtual_adversarial, lam * phi, phi, loss=kl_divergence),),
        ),
        Method(
            "lyu",
            "lyu",
            "Lyu et al. 2015 (arXiv:1511.06385): only the worst samples of an Lp ball, linearised",
            ("phi", "p"),
            lambda phi, p: _samples_only(DUALS[p])(phi),
        ),
        Method(
            "nokland",
            "nokland",
            "Nøkland 2015 (arXiv:1510.04189): fast gradient sign samples only",
            ("phi",),
            _samples_only(L1),
        ),
    )
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
        for name in _EXAMPLES:
            value = getattr(self, name)
            if value is None and name in takes:
                example = " ".join(f"--{option} {_EXAMPLES[option]}" for option in takes)
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
        return make(**{name: getattr(self, name) for name in self.method.takes}) if make else ()

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
        return "-".join([self.method.stem, *(["exact"] if self.gradient == "exact" else []), *numbers, *terms])

    def mix(self) -> tuple[str, str | None]:
        """Say what the numbers mean in Eq. 4: a line for the user, and a warning or None."""
        terms = self.terms
        if not terms:
            return f"{self.method.source}; plain gradients, no adversarial pass", None
        # a loss of its own takes nothing off the clean one; and 1 - 0.1 / 0.1 is 0, and reads so
        beside = [term for term in terms if term.task == MAIN and term.loss is not kl_divergence]
        clean = round(float(clean_weight(beside)), 12)
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
