"""Every method by name, as a row: which penalty on the input gradient, which on the weights.

What a row and its lambda and phi mean as a mix of clean and adversarial gradients is Eq. 4.
"""

import math
from dataclasses import dataclass

from nnlite.datagrad import Term, clean_weight
from nnlite.errors import NnliteError
from nnlite.penalties import L1, L2, Penalty


@dataclass(frozen=True)
class Method:
    """A row: the name used on the command line, the stem of a run's name, and the two penalties."""

    name: str
    stem: str
    on_gradient: Penalty | None
    on_weights: Penalty | None
    source: str

    @property
    def uses_lam(self) -> bool:
        """Whether the method has a penalty for lambda to weigh."""
        return self.on_gradient is not None or self.on_weights is not None

    @property
    def uses_phi(self) -> bool:
        """Whether the method takes a second pass, a step phi away."""
        return self.on_gradient is not None

    def check(self, lam: float | None, phi: float | None) -> None:
        """Raise NnliteError unless lam and phi are what this method takes."""
        for option, value, used in (("lam", lam, self.uses_lam), ("phi", phi, self.uses_phi)):
            if value is None and used:
                example = "--lam 0.01 --phi 0.1" if self.uses_phi else "--lam 0.001"
                raise NnliteError(f"{option}: method {self.name} needs it; give for example {example}")
            if value is not None and not used:
                raise NnliteError(f"{option}: method {self.name} does not use it; leave it out")
        if lam is not None and not (math.isfinite(lam) and lam >= 0):
            raise NnliteError(f"lam: expected a finite number of at least 0, found {lam}")
        if phi is not None and not (math.isfinite(phi) and phi > 0):
            raise NnliteError(f"phi: expected a finite number above 0, found {phi}")

    def terms(self, lam: float | None, phi: float | None) -> tuple[Term, ...]:
        """Return the DataGrad terms of Eq. 1 for this lam and phi: one, or none."""
        self.check(lam, phi)
        if self.on_gradient is None or lam is None or phi is None:
            return ()
        return (Term(self.on_gradient, lam, phi),)

    def run_name(self, lam: float | None, phi: float | None) -> str:
        """Return the name of a run without one of its own, such as dgl1-lam0.01-phi0.1."""
        numbers = (("lam", lam), ("phi", phi))
        return "-".join([self.stem, *(f"{name}{value:g}" for name, value in numbers if value is not None)])


METHODS = {
    method.name: method
    for method in (
        Method("none", "rect", None, None, "the paper's Rect: no regularisation"),
        Method("l1", "l1", None, L1, "the classical L1 penalty on the weights"),
        Method("l2", "l2", None, L2, "the classical L2 penalty on the weights"),
        Method("dgl1", "dgl1", L1, None, "DataGrad-L1"),
        Method("dgl2", "dgl2", L2, None, "DataGrad-L2"),
    )
}


def mix(method: Method, lam: float | None, phi: float | None) -> tuple[str, str | None]:
    """Say what lam and phi mean in Eq. 4: a line for the user, and a warning or None."""
    terms = method.terms(lam, phi)
    if not terms:
        return f"{method.source}; plain gradients, no adversarial pass", None
    adversarial = float(terms[0].weight)
    clean = round(float(clean_weight(terms)), 12)  # 1 - 0.1 / 0.1 is 0, and reads so
    words = f"{method.source}; Eq. 4 mixes {clean:g} clean + {adversarial:g} adversarial gradient"
    if clean == 0:
        words += ": adversarial samples only, as Nøkland 2015, Lyu et al. 2015, Huang et al. 2015"
    elif 0 < clean < 1 and method.on_gradient is L1:
        words += f": Goodfellow et al. 2014 with alpha = {clean:g}"
    warning = None
    if clean < 0:
        warning = f"the clean gradient has the negative weight {clean:g}: lambda is larger than phi"
    elif phi is not None and phi <= 1e-4:
        warning = f"phi = {phi:g} is so small that float32 loses digits of the finite difference"
    return words, warning
