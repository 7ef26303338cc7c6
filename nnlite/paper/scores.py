"""Scores: the accuracies that attacks leave, ours or the paper's own, so that each question can be put to both."""

import csv
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.paper.tables import ADVERSARIES, IMAGES, MODELS, PHI, Model, in_order, paper_accuracy
from nnlite.storage.files import read_text

SCORES = "scores.csv"
SCORES_LIMIT = 1 << 23  # bytes; all tables of the paper take 34,000
SCORES_HEAD = ("adversary", "noise", "victim", "seed", "phi", "accuracy")

Percent: TypeAlias = npt.NDArray[np.float64]
ScoreKey: TypeAlias = tuple[Model, str, Model]  # adversary, noise ("r1" or "r2"), victim


@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracies in percent: arrays (seeds, phi) at the paper's five PHI, each over `images` test images.

    A key that is absent was not run.
    """

    images: int
    values: dict[ScoreKey, Percent]

    def __post_init__(self) -> None:
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

    def lines(self) -> Iterator[list[object]]:
        """Yield the lines of scores.csv, in the order of SCORES_HEAD: each accuracy of each seed, counted from 0."""
        for (adversary, noise, victim), accuracy in self.values.items():
            for (seed, column), value in np.ndenumerate(accuracy):
                yield [adversary.slug, noise, victim.slug, seed, PHI[column], float(value)]


@functools.cache
def paper_scores() -> Scores:
    """Return the paper's own tables as Scores: one seed, 10,000 images, R1 only."""
    values = {
        (adversary, "r1", model): np.array([paper_accuracy(number, model)])
        for number, adversary in ADVERSARIES.items()
        for model in MODELS
    }
    return Scores(IMAGES, values)


def read_scores(folder: Path) -> dict[ScoreKey, Percent]:
    """Return the accuracies (seeds, phi) in scores.csv in `folder`, {} without one; NnliteError for a damaged file."""
    path = folder / SCORES
    slugs = {model.slug: model for model in MODELS}
    found: dict[ScoreKey, dict[tuple[int, float], float]] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_text(path, SCORES_LIMIT))):
            key = slugs[row["adversary"]], row["noise"], slugs[row["victim"]]
            found.setdefault(key, {})[int(row["seed"]), float(row["phi"])] = float(row["accuracy"])
        return {
            key: np.array([[cells[seed, size] for size in PHI] for seed in range(len(cells) // len(PHI))])
            for key, cells in found.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise NnliteError(f"{path}: damaged ({type(error).__name__}: {error}); move it away to attack again") from error
