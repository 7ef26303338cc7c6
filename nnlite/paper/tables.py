"""The paper as data: its 46 models, eight tables, three figures, and the claims that its text makes.

Nothing here trains or attacks. `needed` says which attacks a table or figure is made from, `Scores` holds
what came out of them, and `claims` decides each claim by those numbers. The paper's own tables can be read
as `Scores` too, so a claim can be put to both.
"""

import csv
import functools
import importlib.resources
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.methods import Regularisation

Percent = npt.NDArray[np.float64]

# family as printed: the name of its method in METHODS, and whether it has the rotation head
FAMILIES = {
    "Rect": ("none", False),
    "L1": ("l1", False),
    "L2": ("l2", False),
    "DGL1": ("dgl1", False),
    "DGL2": ("dgl2", False),
    "MT": ("none", True),
    "MT-DGL1": ("dgl1", True),
    "MT-DGL2": ("dgl2", True),
}
IMAGES = 10_000  # in MNIST's test set
HOLDS, FAILS, CLOSE, UNTESTED = "holds", "does not hold", "too close to call", "not tested"


@dataclass(frozen=True)
class Model:
    """A row of the tables: a family, and the lambda and phi it was trained with, None where not used."""

    family: str
    lam: float | None = None
    phi: float | None = None

    @property
    def label(self) -> str:
        """The name as the paper prints it, such as DGL1 λ = 0.01 φ = 0.1."""
        numbers = (("λ", self.lam), ("φ", self.phi))
        return " ".join([self.family, *(f"{name} = {value:g}" for name, value in numbers if value is not None)])

    @property
    def reg(self) -> str:
        """The name of the method in `nnlite.methods.METHODS`."""
        return FAMILIES[self.family][0]

    @property
    def multitask(self) -> bool:
        """Whether the net has the rotation head."""
        return FAMILIES[self.family][1]

    @property
    def slug(self) -> str:
        """The name of a folder, such as mt-dgl1-lam0.1-phi0.1."""
        if self.family == "MT":
            return "mt"
        return "mt-" * self.multitask + Regularisation(self.reg, self.lam, self.phi).slug


def _read_tables() -> tuple[tuple[float, ...], dict[int, dict[Model, tuple[float, ...]]]]:
    text = importlib.resources.files("nnlite.data").joinpath("paper-tables.csv").read_text("utf-8")
    header, *lines = csv.reader(text.splitlines())
    tables: dict[int, dict[Model, tuple[float, ...]]] = {}
    for number, _, family, lam, phi, *accuracies in lines:
        model = Model(family, float(lam) if lam else None, float(phi) if phi else None)
        tables.setdefault(int(number), {})[model] = tuple(map(float, accuracies))
    return tuple(float(name.removeprefix("acc_phi_")) for name in header[5:]), tables


PHI, _TABLES = _read_tables()
MODELS = tuple(_TABLES[1])

ADVERSARIES = {
    1: Model("Rect"),
    2: Model("L1", 0.001),
    3: Model("L2", 0.01),
    4: Model("DGL1", 0.01, 0.1),
    5: Model("DGL2", 0.01, 0.1),
    6: Model("MT"),
    7: Model("MT-DGL1", 0.01, 0.1),
    8: Model("MT-DGL2", 0.1, 0.01),
}
"""Who attacks in each table. The paper names the family only.

Rect and MT have one row. Figure 3 prints the self-attacks of Rect, L1 and DGL1, and they are rows of Tables 1,
2 and 4. The settings of Tables 3, 5, 7 and 8 are inferred: of the adversary's family it is the row that falls
fastest, that is furthest below the mean of the same row over all eight tables. So does the row of Table 4.
In Table 2 the two signs differ: Figure 3 prints lambda 0.001, but lambda 0.0001 falls furthest.
"""

_ONE_ROW = "the family has one row"
_FIGURE_3 = "Figure 3 prints this row as a self-attack"
_INFERRED = "inferred: of its family this row falls furthest below its mean over the eight tables"
ADVERSARY_SOURCES = {
    1: _ONE_ROW,
    2: f"{_FIGURE_3}; in Table 2 itself L1 λ = 0.0001 falls further",
    3: _INFERRED,
    4: _FIGURE_3,
    5: _INFERRED,
    6: _ONE_ROW,
    7: _INFERRED,
    8: _INFERRED,
}

FIGURE_3 = {
    Model("Rect"): (97.99, 96.80, 95.01, 49.06, 10.83),
    Model("L1", 0.001): (98.41, 97.62, 96.68, 71.69, 30.05),
    Model("DGL1", 0.01, 0.1): (98.83, 98.63, 98.34, 94.41, 83.74),
}
"""The accuracies that Figure 3 prints, each model attacking itself."""


def paper_accuracy(table: int, model: Model) -> tuple[float, ...]:
    """Return the paper's accuracies in percent, one for each of PHI, in `table` 1 to 8."""
    return _TABLES[table][model]


def in_order(models: Iterable[Model]) -> tuple[Model, ...]:
    """Return each of `models` once, in the order of the paper's tables."""
    chosen = set(models)
    return tuple(model for model in MODELS if model in chosen)


def best_of_families(models: Iterable[Model]) -> tuple[Model, ...]:
    """Return the best of `models` in each family, in the order of FAMILIES.

    Best is the highest accuracy at phi 0.1 in the paper, as a mean over its eight tables.
    """

    def robustness(model: Model) -> float:
        return math.fsum(rows[model][-1] for rows in _TABLES.values())

    chosen = in_order(models)
    groups = ([model for model in chosen if model.family == family] for family in FAMILIES)
    return tuple(max(group, key=robustness) for group in groups if group)


RANGE_ENDS = tuple(Model(family, *ends) for family in ("DGL1", "DGL2") for ends in ((0.0001, 0.1), (0.01, 0.01)))
"""The lowest lambda and the lowest phi beside the highest of both, without which no claim on them can be decided."""

BEST_MODELS = in_order((*ADVERSARIES.values(), *best_of_families(MODELS), *RANGE_ENDS))
TARGETS = (*(f"table{number}" for number in ADVERSARIES), "fig1", "fig2", "fig3")


class Attack(NamedTuple):
    """One adversary crafts R1 or R2 noise ("r1", "r2") for the whole test set; the victims are scored on it."""

    adversary: Model
    noise: str
    victims: tuple[Model, ...]


def needed(target: str, models: Iterable[Model]) -> tuple[list[Attack], tuple[Model, ...]]:
    """Return the attacks that one of TARGETS is made from, and all models in them.

    `models` are the rows wanted; an adversary is needed, and scored, also where it is not among them.
    Figures 1 and 2 take the best of `models` in each family, Figure 3 its own three models.
    """
    wanted = tuple(models)
    tables = {f"table{number}": adversary for number, adversary in ADVERSARIES.items()}
    if target in tables:
        attacks = [Attack(tables[target], "r1", in_order((*wanted, tables[target])))]
    elif target == "fig1":
        attacks = [Attack(model, noise, (model,)) for model in best_of_families(wanted) for noise in ("r1", "r2")]
    elif target == "fig2":
        pair = (Model("Rect"), Model("MT"))
        attacks = [Attack(adversary, "r1", best_of_families((*wanted, *pair))) for adversary in pair]
    elif target == "fig3":
        attacks = [Attack(model, "r1", (model,)) for model in FIGURE_3]
    else:
        raise NnliteError(f"target: expected one of {', '.join(TARGETS)}, found {target!r}")
    return attacks, in_order(model for attack in attacks for model in (attack.adversary, *attack.victims))


@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracies in percent: values[adversary, noise, victim] has shape (seeds, phi); noise is "r1" or "r2".

    phi: the paper's five, PHI. images: how many test images each accuracy rests on. An absent key was not run.
    """

    phi: tuple[float, ...]
    images: int
    values: dict[tuple[Model, str, Model], Percent]

    def __post_init__(self) -> None:
        if self.phi != PHI:
            raise NnliteError(f"scores: expected the paper's phi {PHI}, found {self.phi}")
        if self.images < 1:
            raise NnliteError(f"scores: expected at least one image, found {self.images}")
        for (adversary, noise, victim), accuracy in self.values.items():
            where = f"scores: {adversary.label}, {noise}, {victim.label}"
            if noise not in ("r1", "r2"):
                raise NnliteError(f"{where}: expected the noise r1 or r2")
            if accuracy.ndim != 2 or accuracy.shape[0] < 1 or accuracy.shape[1] != len(PHI):
                raise NnliteError(f"{where}: expected the shape (seeds, {len(PHI)}), found {accuracy.shape}")
            if not np.all((accuracy >= 0) & (accuracy <= 100)):  # false for NaN, too
                raise NnliteError(f"{where}: expected percentages from 0 to 100, found {accuracy.tolist()}")

    def victims(self, adversary: Model, noise: str = "r1") -> tuple[Model, ...]:
        """Return the models that this adversary's noise was tried on, in the order of the tables."""
        return in_order(victim for who, kind, victim in self.values if (who, kind) == (adversary, noise))

    def self_attacked(self, noise: str = "r1") -> tuple[Model, ...]:
        """Return the models that attacked themselves, in the order of the tables."""
        return in_order(victim for who, kind, victim in self.values if kind == noise and who == victim)

    def tables(self) -> Iterator[tuple[int, Model, tuple[Model, ...]]]:
        """Yield number, adversary and victims of each table that has rows here."""
        for number, adversary in ADVERSARIES.items():
            victims = self.victims(adversary)
            if victims:
                yield number, adversary, victims


@functools.cache
def paper_scores() -> Scores:
    """Return the paper's own tables as Scores: one seed, 10,000 images, R1 only."""
    values = {
        (ADVERSARIES[number], "r1", model): np.array([accuracies])
        for number, rows in _TABLES.items()
        for model, accuracies in rows.items()
    }
    return Scores(PHI, IMAGES, values)


class Interval(NamedTuple):
    """A difference of accuracies in points, and the ends of its 95 % confidence interval."""

    difference: float
    low: float
    high: float


def interval(a: Percent, b: Percent | float, images: int) -> Interval:
    """Return mean(a) - mean(b) with its 95 % confidence interval; a, b (seeds,) are accuracies in percent.

    The variance of the difference is the sum over a and b of

        m (100 - m) / images  +  s^2 / seeds        m the mean and s^2 the variance over seeds (ddof 1)

    The first part is binomial, over images; the images are the same for all seeds, so it does not shrink with
    them. The second is that of the mean over seeds; with one seed it is unknown and left out, so the interval
    then says nothing of how another seed would come out. The quantile is Student's t with Welch and
    Satterthwaite's degrees of freedom, the binomial parts counted as known; 1.96 where there is one seed. a and b
    are taken as independent, although their images are the same: the interval is rather too wide than too narrow.
    A number b is a fixed threshold, without variance.
    """
    from scipy.stats import t

    variance = spread = 0.0
    for side in (a, b):
        if isinstance(side, float):
            continue
        mean, seeds = float(side.mean()), len(side)
        variance += mean * (100 - mean) / images
        if seeds > 1:
            between = float(side.var(ddof=1)) / seeds
            variance += between
            spread += between**2 / (seeds - 1)
    freedom = variance**2 / spread if spread else math.inf
    half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    difference = float(np.mean(a) - np.mean(b))
    return Interval(difference, difference - half, difference + half)


@dataclass(frozen=True)
class Comparison:
    """One part of a claim: by how many points the numbers go the claim's way."""

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
    """A claim of the paper, where it makes it, and what the scores say."""

    text: str
    where_in_paper: str
    verdict: str
    evidence: str


def claims(scores: Scores) -> list[Claim]:
    """Decide each claim of the paper by `scores`.

    A claim of several comparisons holds if all of them do and does not hold if one clearly does not, see
    `interval`; else it is too close to call. The evidence names the comparison that decides, the worst one. "Best
    row of a family" is the row of `scores` with the highest accuracy at phi 0.1, as a mean over the tables at hand.
    """
    return [_decide(text, where, compare(scores), len(compare(paper_scores()))) for text, where, compare in _CLAIMS]


def _decide(text: str, where: str, comparisons: Sequence[Comparison], in_paper: int) -> Claim:
    if not comparisons:
        return Claim(text, where, UNTESTED, "the models or attacks that it needs are not among the scores")
    severity = (FAILS, CLOSE, HOLDS)
    worst = min(comparisons, key=lambda one: (severity.index(one.verdict), one.margin.difference))
    count = f"{sum(one.verdict == HOLDS for one in comparisons)} of {len(comparisons)} comparisons hold"
    if len(comparisons) < in_paper:
        count += f", {in_paper} are possible with all models and tables"
    name = "worst" if len(comparisons) > 1 else "the one"
    return Claim(text, where, worst.verdict, f"{count}; {name}: {worst}")


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
    one, other = (scores.values[adversary, "r1", model][:, -1] for model in (a, b))
    first, second = (
        _named(model, accuracy, ", its own attack" * (model == adversary)) for model, accuracy in ((a, one), (b, other))
    )
    return Comparison(f"Table {number}, {first} against {second}", interval(one, other, scores.images))


def _beats(winner: str, rivals: Sequence[str]) -> Callable[[Scores], list[Comparison]]:
    """In each table, the best row of one family against the best row of each rival."""

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
    return [*_beats("DGL1", ["DGL2"])(scores), *_beats("MT-DGL1", ["MT-DGL2"])(scores)]


def _higher(family: str, parameter: str) -> Callable[[Scores], list[Comparison]]:
    """In each table, the highest lambda (or phi) against the lowest, where the other number is the same."""
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
    """Every other model under its own attack against MT under its own."""
    mt = Model("MT")
    models = scores.self_attacked()
    if mt not in models:
        return []
    accuracy = {model: scores.values[model, "r1", model][:, -1] for model in models}
    return [
        Comparison(
            f"{_named(model, accuracy[model])} against {_named(mt, accuracy[mt])}, each attacking itself",
            interval(accuracy[model], accuracy[mt], scores.images),
        )
        for model in models
        if model != mt
    ]


def _fragile_in_table_6(scores: Scores) -> list[Comparison]:
    mt = Model("MT")
    victims = scores.victims(mt)
    return [_versus(scores, 6, other, mt) for other in victims if other != mt and mt in victims]


def _most_robust(scores: Scores) -> list[Comparison]:
    """In each table, the best multi-task DataGrad row against every row that is not one."""
    families = ("MT-DGL1", "MT-DGL2")
    champion = best_row(scores, families)
    return [
        _versus(scores, number, champion, other)
        for number, _, victims in scores.tables()
        for other in victims
        if champion in victims and other.family not in families
    ]


def _cleaner(families: Sequence[str]) -> Callable[[Scores], list[Comparison]]:
    """On clean images, the best row of each family against Rect."""

    def compare(scores: Scores) -> list[Comparison]:
        clean = {victim: accuracy[:, 0] for (_, _, victim), accuracy in scores.values.items()}
        rect = clean.get(Model("Rect"))
        rows = [row for family in families if (row := best_row(scores, [family]))]
        return [
            Comparison(
                f"{_named(row, clean[row])} against {_named(Model('Rect'), rect)}, clean images",
                interval(clean[row], rect, scores.images),
            )
            for row in rows
            if rect is not None
        ]

    return compare


def _r2_is_harmless(scores: Scores) -> list[Comparison]:
    """Every model under its own R2 noise, at the phi that hurts it most, against 92 %."""
    found = []
    for model in scores.self_attacked("r2"):
        accuracy = scores.values[model, "r2", model]
        column = int(accuracy.mean(axis=0).argmin())
        text = f"{_named(model, accuracy[:, column], f' at φ = {PHI[column]:g}')} against 92 %"
        found.append(Comparison(text, interval(accuracy[:, column], 92.0, scores.images)))
    return found


_EVERY = "whoever attacks (R1, φ = 0.1; best row of each family)"
_CLAIMS: tuple[tuple[str, str, Callable[[Scores], list[Comparison]]], ...] = (
    (
        f"DataGrad-L1 is more robust than Rect, L1 and L2, {_EVERY}",
        "section 3, Figures 1 and 2, Tables 1-8",
        _beats("DGL1", ["Rect", "L1", "L2"]),
    ),
    (
        f"DataGrad-L2 is more robust than Rect, L1 and L2, {_EVERY}",
        "section 3, Figures 1 and 2, Tables 1-8",
        _beats("DGL2", ["Rect", "L1", "L2"]),
    ),
    (
        f"DataGrad's L1 form is more robust than its L2 form, single-task and multi-task, {_EVERY}",
        "section 3, appendix A",
        _l1_form,
    ),
    (
        "DGL1 with a higher λ is more robust (highest against lowest at the same φ, each table)",
        "appendix A",
        _higher("DGL1", "lam"),
    ),
    (
        "DGL1 with a higher φ is more robust (highest against lowest at the same λ, each table)",
        "appendix A",
        _higher("DGL1", "phi"),
    ),
    (
        "DGL2 with a higher λ is more robust (highest against lowest at the same φ, each table)",
        "appendix A",
        _higher("DGL2", "lam"),
    ),
    (
        "DGL2 with a higher φ is more robust (highest against lowest at the same λ, each table)",
        "appendix A",
        _higher("DGL2", "phi"),
    ),
    (
        "MT alone is the most fragile model when each attacks itself (R1, φ = 0.1)",
        "section 3, Figure 1",
        _fragile_alone,
    ),
    (
        "MT alone is the most fragile victim of MT's attack (R1, φ = 0.1)",
        "section 3, Figure 2, Table 6",
        _fragile_in_table_6,
    ),
    (
        "Multi-task plus DataGrad is the most robust of all rows, whoever attacks (R1, φ = 0.1)",
        "abstract, appendix A",
        _most_robust,
    ),
    (
        "DataGrad improves the clean accuracy over Rect (best row of DGL1 and of DGL2)",
        "section 3, conclusion",
        _cleaner(["DGL1", "DGL2"]),
    ),
    (
        "Multi-task DataGrad improves the clean accuracy over Rect (best row of MT-DGL1 and of MT-DGL2)",
        "section 3, conclusion",
        _cleaner(["MT-DGL1", "MT-DGL2"]),
    ),
    (
        "R2 noise of a model's own never drops it below 92 %",
        "section 3, Figure 1",
        _r2_is_harmless,
    ),
)
