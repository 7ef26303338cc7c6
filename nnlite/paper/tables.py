"""The paper's tables as data: its 46 models, their accuracies in eight tables, and who attacks in each table.

Six rows are added that the tables lack, though the text says that they were searched: see MISSING.
"""

import csv
import importlib.resources
import math
from collections.abc import Iterable
from dataclasses import dataclass

from nnlite.training.settings import Settings, with_defaults

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
        given = {"reg": self.reg, "lam": self.lam, "phi": self.phi, "multitask": self.multitask}
        return Settings(**with_defaults(given)).run_name


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

MISSING = tuple(Model(family, 0.1, phi) for family in ("DGL1", "DGL2") for phi in (0.01, 0.05, 0.1))
"""Single-task DataGrad with lambda 0.1, which the paper searched and prints for the multi-task forms only."""

ROWS = tuple(
    model
    for family in dict.fromkeys(one.family for one in MODELS)
    for model in (*MODELS, *MISSING)
    if model.family == family
)
"""All rows, the paper's and those it lacks, in the order of its tables."""

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

Rect and MT have one row. Figure 3 prints the self-attacks of Rect, L1 and DGL1, and they are rows of Tables 1, 2 and 4.
The settings of Tables 3, 5, 7 and 8 are inferred: each is the row of its family that falls furthest, that is furthest
below the mean of the same row over all eight tables. The row of Table 4 does so, too. In Table 2 the two signs
differ: Figure 3 prints lambda 0.001, but lambda 0.0001 falls furthest.
"""

ADVERSARY_SOURCES = {
    **dict.fromkeys((1, 6), "the family has one row"),
    2: "Figure 3 prints this row as a self-attack; in Table 2 itself L1 λ = 0.0001 falls further",
    **dict.fromkeys((3, 5, 7, 8), "inferred: of its family this row falls furthest below its mean over all tables"),
    4: "Figure 3 prints this row as a self-attack",
}

FIGURE_3 = {
    Model("Rect"): (97.99, 96.80, 95.01, 49.06, 10.83),
    Model("L1", 0.001): (98.41, 97.62, 96.68, 71.69, 30.05),
    Model("DGL1", 0.01, 0.1): (98.83, 98.63, 98.34, 94.41, 83.74),
}
"""The accuracies that Figure 3 prints, for models that attack themselves."""


def paper_accuracy(table: int, model: Model) -> tuple[float, ...]:
    """Return the paper's accuracies in percent, one for each of PHI, in `table` 1 to 8; NaN for a row of MISSING."""
    return (math.nan,) * len(PHI) if model in MISSING else _TABLES[table][model]


def in_order(models: Iterable[Model]) -> tuple[Model, ...]:
    """Return each of `models` once, in the order of ROWS."""
    chosen = set(models)
    return tuple(model for model in ROWS if model in chosen)


def best_of_families(models: Iterable[Model]) -> tuple[Model, ...]:
    """Return the best of `models` in each family, in the order of FAMILIES; those of MISSING do not count.

    The best is the one with the highest accuracy at phi 0.1 in the paper, as a mean over its eight tables.
    """

    def robustness(model: Model) -> float:
        return math.fsum(rows[model][-1] for rows in _TABLES.values())

    chosen = [model for model in in_order(models) if model not in MISSING]
    groups = ([model for model in chosen if model.family == family] for family in FAMILIES)
    return tuple(max(group, key=robustness) for group in groups if group)


RANGE_ENDS = (
    *(Model(family, *ends) for family in ("DGL1", "DGL2") for ends in ((0.0001, 0.1), (0.01, 0.01))),
    Model("MT-DGL1", 0.1, 0.01),
    Model("MT-DGL2", 0.01, 0.1),
)
"""What the claims on a higher lambda and a higher phi need beside the rest of BEST_MODELS."""

BEST_MODELS = in_order((*ADVERSARIES.values(), *best_of_families(MODELS), *RANGE_ENDS, Model("DGL1", 0.1, 0.1)))
"""The fewest rows with which each claim can be decided; one of them, the last named, is of MISSING."""
