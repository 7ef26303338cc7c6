"""The claims that the paper's text makes, each decided by the numbers of Scores.

A claim is a row of CLAIMS: its text, where the paper makes it, and a function from Scores to the comparisons that must
all go its way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nnlite.paper.intervals import Interval, interval
from nnlite.paper.scores import Percent, Scores, paper_scores
from nnlite.paper.tables import ADVERSARIES, PHI, Model

HOLDS, FAILS, CLOSE, UNTESTED = "holds", "does not hold", "too close to call", "not tested"


@dataclass(frozen=True)
class Comparison:
    """One part of a claim: two accuracies in words, and by how many points they differ in the claim's direction."""

    text: str
    margin: Interval

    @property
    def verdict(self) -> str:
        """Whether the whole interval lies above 0, below it, or neither."""
        return HOLDS if self.margin.low > 0 else FAILS if self.margin.high < 0 else CLOSE

    def __str__(self) -> str:
        difference, low, high = self.margin
        return f"{self.text}: {difference:+.2f} points [{low:+.2f}, {high:+.2f}]"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: its text, where the paper makes it, and what it compares in the scores at hand."""

    text: str
    where_in_paper: str
    compare: Callable[[Scores], list[Comparison]]


@dataclass(frozen=True)
class Decision:
    """A claim, the verdict of some scores on it, and their evidence in words."""

    claim: Claim
    verdict: str
    evidence: str


def decide_claims(scores: Scores) -> list[Decision]:
    """Return a decision on each of CLAIMS.

    A claim of several comparisons holds if all of them do, and does not hold if one clearly does not, see `interval`;
    else it is too close to call. The evidence names the worst comparison, which decides. "Best row of a family" is the
    row of `scores` with the highest accuracy at phi 0.1, as a mean over the tables at hand.
    """
    return [_decide(claim, claim.compare(scores)) for claim in CLAIMS]


def _decide(claim: Claim, comparisons: Sequence[Comparison]) -> Decision:
    if not comparisons:
        return Decision(claim, UNTESTED, "the models or attacks that it needs are not among the scores")
    severity = (FAILS, CLOSE, HOLDS)
    worst = min(comparisons, key=lambda one: (severity.index(one.verdict), one.margin.difference))
    count = f"{sum(one.verdict == HOLDS for one in comparisons)} of {len(comparisons)} comparisons hold"
    possible = len(claim.compare(paper_scores()))
    if len(comparisons) < possible:
        count += f", {possible} are possible with all models and tables"
    name = "worst" if len(comparisons) > 1 else "the only one"
    return Decision(claim, worst.verdict, f"{count}; {name}: {worst}")


def best_row(scores: Scores, families: Sequence[str]) -> Model | None:
    """Return the row of `families` with the highest mean accuracy at phi 0.1 over the tables in `scores`."""
    found: dict[Model, list[float]] = {}
    for _, adversary, victims in scores.tables():
        for victim in victims:
            if victim.family in families:
                found.setdefault(victim, []).append(float(scores.values[adversary, "r1", victim][:, -1].mean()))
    return max(found, key=lambda model: math.fsum(found[model]) / len(found[model])) if found else None


def _named(model: Model, accuracy: Percent, note: str = "") -> str:
    return f"{model.label} ({accuracy.mean():.2f} %{note})"


def _versus(scores: Scores, number: int, a: Model, b: Model) -> Comparison:
    """Compare two victims of one table at phi 0.1."""
    adversary = ADVERSARIES[number]
    accuracy = {model: scores.values[adversary, "r1", model][:, -1] for model in (a, b)}
    first, second = (_named(model, accuracy[model], ", its own attack" * (model == adversary)) for model in (a, b))
    return Comparison(f"Table {number}, {first} against {second}", interval(accuracy[a], accuracy[b], scores.images))


def _alike(scores: Scores, accuracy: Mapping[Model, Percent], a: Model, b: Model, what: str) -> Comparison:
    """Compare two models by accuracies (seeds,) that were found in the same way, which `what` says."""
    text = f"{_named(a, accuracy[a])} against {_named(b, accuracy[b])}, {what}"
    return Comparison(text, interval(accuracy[a], accuracy[b], scores.images))


def _beats(winner: str, *rivals: str) -> Callable[[Scores], list[Comparison]]:
    """In each table, compare the best row of one family with the best row of each rival."""

    def compare(scores: Scores) -> list[Comparison]:
        champion = best_row(scores, [winner])
        others = [row for family in rivals if (row := best_row(scores, [family]))]
        return [
            _versus(scores, number, champion, other)
            for number, _, victims in scores.tables()
            for other in others
            if champion in victims and other in victims
        ]

    return compare


def _l1_form(scores: Scores) -> list[Comparison]:
    return [*_beats("DGL1", "DGL2")(scores), *_beats("MT-DGL1", "MT-DGL2")(scores)]


def _higher(family: str, parameter: str) -> Callable[[Scores], list[Comparison]]:
    """In each table, compare the highest lambda (or phi) with the lowest, where the other number is the same."""
    fixed = {"lam": "phi", "phi": "lam"}[parameter]

    def size(model: Model) -> float:
        return float(getattr(model, parameter))

    def compare(scores: Scores) -> list[Comparison]:
        pairs = []
        for number, _, victims in scores.tables():
            rows = [model for model in victims if model.family == family]
            for value in dict.fromkeys(getattr(model, fixed) for model in rows):
                group = [model for model in rows if getattr(model, fixed) == value]
                low, high = min(group, key=size), max(group, key=size)
                if low != high:
                    pairs.append(_versus(scores, number, high, low))
        return pairs

    return compare


def _fragile_alone(scores: Scores) -> list[Comparison]:
    """Compare every other model under its own attack with MT under its own."""
    mt = Model("MT")
    accuracy = {model: scores.values[model, "r1", model][:, -1] for model in scores.self_attacked()}
    others = [model for model in accuracy if model != mt and mt in accuracy]
    return [_alike(scores, accuracy, other, mt, "each attacking itself") for other in others]


def _fragile_in_table_6(scores: Scores) -> list[Comparison]:
    mt = Model("MT")
    victims = scores.victims(mt)
    return [_versus(scores, 6, other, mt) for other in victims if other != mt and mt in victims]


def _most_robust(scores: Scores) -> list[Comparison]:
    """In each table, compare the best multi-task DataGrad row with every row that is not one."""
    families = ("MT-DGL1", "MT-DGL2")
    champion = best_row(scores, families)
    return [
        _versus(scores, number, champion, other)
        for number, _, victims in scores.tables()
        for other in victims
        if champion in victims and other.family not in families
    ]


def _cleaner(*families: str) -> Callable[[Scores], list[Comparison]]:
    """On clean images, compare the best row of each family with Rect."""

    def compare(scores: Scores) -> list[Comparison]:
        clean = {victim: accuracy[:, 0] for (_, _, victim), accuracy in scores.values.items()}
        rect = Model("Rect")
        rows = [row for family in families if rect in clean and (row := best_row(scores, [family]))]
        return [_alike(scores, clean, row, rect, "clean images") for row in rows]

    return compare


def _r2_is_harmless(scores: Scores) -> list[Comparison]:
    """Compare every model under its own R2 noise, at the phi that hurts it most, with 92 %."""
    found = []
    for model in scores.self_attacked("r2"):
        accuracy = scores.values[model, "r2", model]
        column = int(accuracy.mean(axis=0).argmin())
        text = f"{_named(model, accuracy[:, column], f' at φ = {PHI[column]:g}')} against 92 %"
        found.append(Comparison(text, interval(accuracy[:, column], 92.0, scores.images)))
    return found


_ALWAYS = "whichever model attacks (R1, φ = 0.1; best row of each family)"
_SYMBOLS = {"lam": "λ", "phi": "φ"}
CLAIMS = (
    Claim(
        f"DataGrad-L1 is more robust than Rect, L1 and L2, {_ALWAYS}",
        "section 3, Figures 1 and 2, Tables 1-8",
        _beats("DGL1", "Rect", "L1", "L2"),
    ),
    Claim(
        f"DataGrad-L2 is more robust than Rect, L1 and L2, {_ALWAYS}",
        "section 3, Figures 1 and 2, Tables 1-8",
        _beats("DGL2", "Rect", "L1", "L2"),
    ),
    Claim(
        f"DataGrad's L1 form is more robust than its L2 form, single-task and multi-task, {_ALWAYS}",
        "section 3, appendix A",
        _l1_form,
    ),
    *(
        Claim(
            f"{family} with a higher {_SYMBOLS[one]} is more robust (highest against lowest at the same "
            f"{_SYMBOLS[other]}, each table)",
            "appendix A",
            _higher(family, one),
        )
        for family in ("DGL1", "DGL2")
        for one, other in (("lam", "phi"), ("phi", "lam"))
    ),
    Claim(
        "MT alone is the most fragile model when each attacks itself (R1, φ = 0.1)",
        "section 3, Figure 1",
        _fragile_alone,
    ),
    Claim(
        "MT alone is the most fragile victim of MT's attack (R1, φ = 0.1)",
        "section 3, Figure 2, Table 6",
        _fragile_in_table_6,
    ),
    Claim(
        "Multi-task plus DataGrad is the most robust of all rows, whichever model attacks (R1, φ = 0.1)",
        "abstract, appendix A",
        _most_robust,
    ),
    Claim(
        "DataGrad improves the clean accuracy over Rect (best row of DGL1 and of DGL2)",
        "section 3, conclusion",
        _cleaner("DGL1", "DGL2"),
    ),
    Claim(
        "Multi-task DataGrad improves the clean accuracy over Rect (best row of MT-DGL1 and of MT-DGL2)",
        "section 3, conclusion",
        _cleaner("MT-DGL1", "MT-DGL2"),
    ),
    Claim("R2 noise of a model's own never drops it below 92 %", "section 3, Figure 1", _r2_is_harmless),
)
