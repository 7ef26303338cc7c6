"""The mix: what lambda and phi mean in Eq. 4, in words, and what to beware of."""

from nnlite.datagrad import objectives
from nnlite.training.settings import Settings

SMALL_PHI = 1e-4  # from here on float32 loses the digits that the finite difference is made of


def mix(settings: Settings) -> tuple[str, list[str]]:
    """Return the weights of the passes that Eq. 4 mixes, as a line for the user, and warnings, each a line."""
    source, terms = settings.method.source, settings.terms
    if not terms:
        return f"{source}; plain gradients, no adversarial pass", []
    clean = round(float(objectives(terms)[0].weight), 12)  # 1 - 0.1 / 0.1 is 0, and reads so
    kinds = {True: "exact penalty", False: "adversarial"}
    parts = [f"{term.weight:g} {kinds[term.phi is None]}" for term in terms]
    words = f"{source}; Eq. 4 mixes {' + '.join([f'{clean:g} clean', *parts])} gradient"
    if settings.method.has_exact and clean == 0:
        words += ": adversarial samples only, as Nøkland 2015, Lyu et al. 2015, Huang et al. 2015"
    elif settings.reg == "dgl1" and 0 < clean < 1:
        words += f": Goodfellow et al. 2014 with alpha = {clean:g}"
    warnings = []
    if clean < 0:
        warnings.append(f"the clean gradient has the negative weight {clean:g}: lambda is larger than phi")
    for one in objectives(terms, gamma=settings.auxiliary_losses):
        if one.task in settings.auxiliary_losses and one.weight < 0:
            warnings.append(
                f"the clean gradient of the {one.task} loss has the negative weight {float(one.weight):g}: "
                f"lambda/phi is larger than gamma"
            )
    smallest = min((float(term.phi) for term in terms if term.phi is not None), default=1.0)
    if smallest <= SMALL_PHI:
        warnings.append(f"phi = {smallest:g} is so small that float32 loses digits of the finite difference")
    return words, warnings
