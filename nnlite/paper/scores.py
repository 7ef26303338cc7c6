"""Scores: what attacks leave correct, ours or the paper's own, so that each question can be put to both."""

import csv
import functools
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.paper.tables import ADVERSARIES, IMAGES, MISSING, MODELS, PHI, ROWS, Model, in_order, paper_accuracy
from nnlite.storage.files import read_text
from nnlite.storage.rows import Rows

SCORES = "scores.csv"
SCORES_LIMIT = 1 << 23  # bytes; all tables in both kinds of arithmetic take 400,000
SCORES_HEAD = ("adversary", "noise", "victim", "seed", "phi", "accuracy")

EXACT, NAIVE, SQUARED = "r1", "r1-naive", "r2"
"""The noises: R1 by the exact logit error, by the naive one (`nnlite.evaluation.float32_trap`), and R2."""

Percent: TypeAlias = npt.NDArray[np.float64]
Outcomes: TypeAlias = npt.NDArray[np.bool_]  # (seeds, phi, images): whether each image is still classified correctly
ScoreKey: TypeAlias = tuple[Model, str, Model]  # adversary, noise, victim


@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracies in percent: arrays (seeds, phi) at the paper's five PHI, each over `images` test images.

    A key that is absent was not run. `correct` holds the outcome of each image where it is known, which it is not in
    the paper's tables, nor in what nnlite 0.1.0 has scored.
    """

    images: int
    values: Mapping[ScoreKey, Percent]
    correct: Mapping[ScoreKey, Outcomes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images < 1:
            raise NnliteError(f"scores: expected at least one image, found {self.images}")
        for (adversary, noise, victim), accuracy in self.values.items():
            where = f"scores: {adversary.label}, {noise}, {victim.label}"
            if noise not in (EXACT, NAIVE, SQUARED):
                raise NnliteError(f"{where}: expected the noise {EXACT}, {NAIVE} or {SQUARED}")
            if accuracy.ndim != 2 or accuracy.shape[0] < 1 or accuracy.shape[1] != len(PHI):
                raise NnliteError(f"{where}: expected the shape (seeds, {len(PHI)}), found {accuracy.shape}")
            if not np.all((accuracy >= 0) & (accuracy <= 100)):  # false for NaN, too
                raise NnliteError(f"{where}: expected percentages from 0 to 100, found {accuracy.tolist()}")
        for key, outcomes in self.correct.items():
            if key not in self.values or outcomes.shape != (*self.values[key].shape, self.images):
                expected = f"outcomes of the shape (seeds, {len(PHI)}, {self.images})"
                raise NnliteError(f"scores: expected {expected} beside each accuracy, found {outcomes.shape}")

    @classmethod
    def of(cls, images: int, correct: Mapping[ScoreKey, Outcomes], older: Mapping[ScoreKey, Percent]) -> "Scores":
        """Return the scores of these outcomes, and of accuracies without any."""
        return cls(images, {**older, **{key: 100 * ones.mean(axis=-1) for key, ones in correct.items()}}, correct)

    def victims(self, adversary: Model, noise: str = EXACT) -> tuple[Model, ...]:
        """Return the models that this adversary's noise was tried on, in the order of the tables."""
        return in_order(victim for who, kind, victim in self.values if (who, kind) == (adversary, noise))

    def self_attacked(self, noise: str = EXACT) -> tuple[Model, ...]:
        """Return the models that attacked themselves, in the order of the tables."""
        return in_order(victim for who, kind, victim in self.values if kind == noise and who == victim)

    @functools.cached_property
    def tables(self) -> tuple[tuple[int, Model, tuple[Model, ...]], ...]:
        """Number, adversary and victims of each table that has rows here."""
        found = ((number, adversary, self.victims(adversary)) for number, adversary in ADVERSARIES.items())
        return tuple(table for table in found if table[2])

    def in_paper(self) -> "Scores":
        """Return the scores of the paper's own rows."""
        return self._where(lambda key: key if not {key[0], key[2]} & {*MISSING} else None)

    def naive(self) -> "Scores":
        """Return the scores in which R1 noise is crafted by the naive logit error; R2 noise is left as it is."""
        renamed = {NAIVE: EXACT, SQUARED: SQUARED}
        return self._where(lambda key: (key[0], renamed[key[1]], key[2]) if key[1] in renamed else None)

    def _where(self, rename: Callable[[ScoreKey], ScoreKey | None]) -> "Scores":
        values = {name: found for key, found in self.values.items() if (name := rename(key))}
        correct = {name: found for key, found in self.correct.items() if (name := rename(key))}
        return Scores(self.images, values, correct)

    def lines(self) -> Iterator[list[object]]:
        """Yield the lines of scores.csv, in the order of SCORES_HEAD: each accuracy of each seed, counted from 0."""
        for (adversary, noise, victim), accuracy in self.values.items():
            for (seed, column), value in np.ndenumerate(accuracy):
                yield [adversary.slug, noise, victim.slug, seed, PHI[column], float(value)]


@functools.cache
def paper_scores() -> Scores:
    """Return the paper's own tables as Scores: one seed, 10,000 images, R1 only."""
    values = {
        (adversary, EXACT, model): np.array([paper_accuracy(number, model)])
        for number, adversary in ADVERSARIES.items()
        for model in MODELS
    }
    return Scores(IMAGES, values)


def read_scores(folder: Path) -> dict[ScoreKey, Percent]:
    """Return the accuracies (seeds, phi) in scores.csv in `folder`, {} without one; NnliteError for a damaged file.

    That of 0.1.0 has the same columns, and no naive R1 noise.
    """
    path = folder / SCORES
    slugs = {model.slug: model for model in ROWS}
    found: dict[ScoreKey, dict[tuple[int, float], float]] = {}
    try:
        rows = Rows(io.StringIO(read_text(path, SCORES_LIMIT)))
        names = next(rows, [])
        for row in (dict(zip(names, fields, strict=True)) for fields in rows if fields):
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
