"""Contrasts: what each kind of claim compares in the scores at hand. A function of Scores returns what is there.

"Best row" is the row of a family with the highest accuracy at phi 0.1, as a mean over the tables at hand.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from nnlite.paper.comparisons import Cell, Contrast
from nnlite.paper.scores import EXACT, SQUARED, ScoreKey, Scores
from nnlite.paper.tables import ADVERSARIES, FAMILIES, FIGURE_3, PHI, Model

Contrasts: TypeAlias = Callable[[Scores], list[Contrast]]
RECT, MT = Model("Rect"), Model("MT")
SINGLE_DG, MULTI_DG = ("DGL1", "DGL2"), ("MT-DGL1", "MT-DGL2")


def best_row(scores: Scores, *families: str) -> Model | None:
    """Return the row of `families` with the highest mean accuracy at phi 0.1 over the tables in `scores`."""
    found: dict[Model, list[float]] = {}
    for _, adversary, victims in scores.tables:
        for victim in victims:
            if victim.family in families:
                found.setdefault(victim, []).append(float(scores.values[adversary, EXACT, victim][:, -1].mean()))
    return max(found, key=lambda model: math.fsum(found[model]) / len(found[model])) if found else None


# -- in each table


def beats(families: Sequence[str], rivals: Sequence[str]) -> Contrasts:
    """In each table, the best row of each family is ahead of the best row of each rival at phi 0.1."""

    def contrasts(scores: Scores) -> list[Contrast]:
        ours, theirs = ([row for one in side if (row := best_row(scores, one))] for side in (families, rivals))
        return list(_in_tables(scores, itertools.product(ours, theirs)))

    return contrasts


def most_robust(*families: str) -> Contrasts:
    """In each table, the best row of `families` together is ahead of every row of another family."""

    def contrasts(scores: Scores) -> list[Contrast]:
        best = best_row(scores, *families)
        others = [model for model in _models(scores) if model.family not in families]
        return list(_in_tables(scores, [(best, other) for other in others if best]))

    return contrasts


def last_in_its_own_table(victim: Model) -> Contrasts:
    """In the table of the model's own attack, every other row is ahead of it."""

    def contrasts(scores: Scores) -> list[Contrast]:
        rows = scores.victims(victim)
        return [_versus(scores, victim, other, victim) for other in rows if other != victim and victim in rows]

    return contrasts


def worse_in_figure_2(scores: Scores) -> list[Contrast]:
    """In the tables of Rect's attack and of MT's, Rect is ahead of MT."""
    tables = [(adversary, victims) for _, adversary, victims in scores.tables if adversary in (RECT, MT)]
    return [_versus(scores, adversary, RECT, MT) for adversary, victims in tables if {RECT, MT} <= {*victims}]


def rises(family: str, parameter: str) -> Contrasts:
    """In each table, the highest lambda (or phi) is ahead of the lowest, where the other number is the same."""
    fixed = {"lam": "phi", "phi": "lam"}[parameter]

    def pairs(scores: Scores) -> Iterator[tuple[Model, Model]]:
        rows = [model for model in _models(scores) if model.family == family]
        for value in dict.fromkeys(getattr(model, fixed) for model in rows):
            group = [model for model in rows if getattr(model, fixed) == value]
            group.sort(key=lambda model: float(getattr(model, parameter)))
            if len(group) > 1:
                yield group[-1], group[0]

    return lambda scores: list(_in_tables(scores, pairs(scores)))


def tasks_at_equal_settings(*families: str, lam: float | None = None, phi: float | None = None) -> Contrasts:
    """In each table, a multi-task row is ahead of the single-task row of the same lambda and phi."""

    def pairs(scores: Scores) -> Iterator[tuple[Model, Model]]:
        models = _models(scores)
        for one in models:
            other = Model(f"MT-{one.family}", one.lam, one.phi)
            if one.family in families and other in models and {(lam, phi)} & {(None, None), (one.lam, one.phi)}:
                yield other, one

    return lambda scores: list(_in_tables(scores, pairs(scores)))


def gain_grows(*families: str) -> Contrasts:
    """In each table, the lead of the best row of each family over Rect is larger at each phi than at the last one."""

    def contrasts(scores: Scores) -> list[Contrast]:
        rows = [row for one in families if (row := best_row(scores, one))]
        return [
            _growth(f"Table {number}", (adversary, EXACT, row), (adversary, EXACT, RECT), step)
            for number, adversary, victims in scores.tables
            for row in rows
            if {row, RECT} <= {*victims}
            for step in _STEPS
        ]

    return contrasts


def modest(*families: str) -> Contrasts:
    """In each table, the best of `families` wins back less than half of what DGL1's best row does of Rect's loss."""

    def contrasts(scores: Scores) -> list[Contrast]:
        row, datagrad = best_row(scores, *families), best_row(scores, "DGL1")
        found = []
        for number, adversary, victims in scores.tables:
            if row and datagrad and {row, datagrad, RECT} <= {*victims}:
                ours, dg, rect = (Cell((adversary, EXACT, model)) for model in (row, datagrad, RECT))
                lead, whole = _mean(scores, ours) - _mean(scores, rect), _mean(scores, dg) - _mean(scores, rect)
                text = f"Table {number}, {row.label} is {lead:.2f} points ahead of Rect, {datagrad.label} {whole:.2f}"
                found.append(Contrast(text, (dg, rect), (ours, ours)))
        return found

    return contrasts


def keeps(margin: float, *families: str) -> Contrasts:
    """In each table, noise of phi 0.1 takes less than `margin` points from the best row of each family."""

    def contrasts(scores: Scores) -> list[Contrast]:
        rows = [row for one in families if (row := best_row(scores, one))]
        return [
            Contrast(f"{_text(scores, number, row)} and clean images", *_loss((adversary, EXACT, row)), margin)
            for number, adversary, victims in scores.tables
            for row in rows
            if row in victims
        ]

    return contrasts


# -- each model against itself


def alone_beats(families: Sequence[str], rivals: Sequence[str], noise: str = EXACT) -> Contrasts:
    """Each model its own adversary: the best of each family is ahead of the best of each rival.

    Arguments:
        families: those that are ahead.
        rivals: those that are behind.
        noise: of the own attack, at phi 0.1, by which the best are chosen, too.
    """

    def contrasts(scores: Scores) -> list[Contrast]:
        own = scores.self_attacked(noise)

        def best(family: str) -> Model | None:
            rows = [model for model in own if model.family == family]
            return max(rows, key=lambda model: _mean(scores, Cell((model, noise, model))), default=None)

        pairs = itertools.product(map(best, families), map(best, rivals))
        return [_alone(scores, one, other, noise) for one, other in pairs if one and other]

    return contrasts


def alone_last(victim: Model) -> Contrasts:
    """Each model its own adversary: every other one is ahead of `victim`."""

    def contrasts(scores: Scores) -> list[Contrast]:
        own = scores.self_attacked()
        return [_alone(scores, other, victim, EXACT) for other in own if other != victim and victim in own]

    return contrasts


def gain_grows_in_figure_3(scores: Scores) -> list[Contrast]:
    """Each model of Figure 3 its own adversary: the lead of DGL1 over both others is larger at each phi."""
    rect, l1, datagrad = FIGURE_3
    own = scores.self_attacked()
    return [
        _growth("Each attacking itself", (datagrad, EXACT, datagrad), (other, EXACT, other), step)
        for other in (rect, l1)
        if {datagrad, other} <= {*own}
        for step in _STEPS
    ]


def own_noise_stays_above(percent: float) -> Contrasts:
    """Every model keeps more than `percent` under its own R2 noise, at the phi that hurts it most."""

    def contrasts(scores: Scores) -> list[Contrast]:
        found = []
        for model in scores.self_attacked(SQUARED):
            accuracy = scores.values[model, SQUARED, model].mean(axis=0)
            column = int(accuracy.argmin())
            text = f"{model.label} ({accuracy[column]:.2f} % at φ = {PHI[column]:g}) against {percent:g} %"
            found.append(Contrast(text, (Cell((model, SQUARED, model), column),), offset=-percent))
        return found

    return contrasts


def r2_is_weaker(scores: Scores) -> list[Contrast]:
    """Every model keeps more under its own R2 noise than under its own R1 noise, at phi 0.1."""
    found = []
    for model in scores.self_attacked(SQUARED):
        if (model, EXACT, model) in scores.values:
            r1, r2 = (Cell((model, noise, model)) for noise in (EXACT, SQUARED))
            text = f"{model.label}, own R2 ({_mean(scores, r2):.2f} %) against own R1 ({_mean(scores, r1):.2f} %)"
            found.append(Contrast(text, (r2,), (r1,)))
    return found


def falls_below(percent: float, model: Model) -> Contrasts:
    """The model keeps less than `percent` of its own R1 noise at phi 0.1."""

    def contrasts(scores: Scores) -> list[Contrast]:
        own = Cell((model, EXACT, model))
        if own.key not in scores.values:
            return []
        text = f"{percent:g} % against {model.label} ({_mean(scores, own):.2f} %, its own attack)"
        return [Contrast(text, (), (own,), percent)]

    return contrasts


# -- clean images


def cleaner(families: Sequence[str], rivals: Sequence[str]) -> Contrasts:
    """On clean images, the best row of each family is ahead of each rival's; best by clean accuracy."""

    def contrasts(scores: Scores) -> list[Contrast]:
        clean = {key[2]: Cell(key, 0) for key in scores.values}

        def best(family: str) -> Model | None:
            rows = [model for model in clean if model.family == family]
            return max(rows, key=lambda model: _mean(scores, clean[model]), default=None)

        found = []
        for one, other in itertools.product(map(best, families), map(best, rivals)):
            if one and other:
                names = (f"{row.label} ({_mean(scores, clean[row]):.2f} %)" for row in (one, other))
                found.append(Contrast(f"{' against '.join(names)}, clean images", (clean[one],), (clean[other],)))
        return found

    return contrasts


def others(*families: str) -> tuple[str, ...]:
    """Return the families of the paper that are not among `families`."""
    return tuple(family for family in FAMILIES if family not in families)


# -- the parts of a contrast

_STEPS = tuple(itertools.pairwise(range(1, len(PHI))))


def _models(scores: Scores) -> list[Model]:
    return list(dict.fromkeys(victim for *_, victims in scores.tables for victim in victims))


def _mean(scores: Scores, cell: Cell) -> float:
    return float(scores.values[cell.key][:, cell.column].mean())


def _in_tables(scores: Scores, pairs: Iterable[tuple[Model, Model]]) -> Iterator[Contrast]:
    """Yield each pair in each table that has both."""
    known = list(pairs)
    for _, adversary, victims in scores.tables:
        for one, other in known:
            if one in victims and other in victims:
                yield _versus(scores, adversary, one, other)


def _versus(scores: Scores, adversary: Model, one: Model, other: Model) -> Contrast:
    (number,) = [number for number, model in ADVERSARIES.items() if model == adversary]
    ahead, behind = Cell((adversary, EXACT, one)), Cell((adversary, EXACT, other))
    names = (
        f"{cell.key[2].label} ({_mean(scores, cell):.2f} %{', its own attack' * (cell.key[2] == adversary)})"
        for cell in (ahead, behind)
    )
    return Contrast(f"Table {number}, {' against '.join(names)}", (ahead,), (behind,))


def _alone(scores: Scores, one: Model, other: Model, noise: str) -> Contrast:
    ahead, behind = (Cell((model, noise, model)) for model in (one, other))
    names = (f"{cell.key[2].label} ({_mean(scores, cell):.2f} %)" for cell in (ahead, behind))
    return Contrast(f"{' against '.join(names)}, each attacking itself", (ahead,), (behind,))


def _text(scores: Scores, number: int, row: Model) -> str:
    adversary = ADVERSARIES[number]
    own = ", its own attack" * (row == adversary)
    return f"Table {number}, {row.label} ({_mean(scores, Cell((adversary, EXACT, row))):.2f} %{own})"


def _loss(key: ScoreKey) -> tuple[tuple[Cell], tuple[Cell]]:
    return (Cell(key),), (Cell(key, 0),)


def _growth(where: str, ahead: ScoreKey, behind: ScoreKey, step: tuple[int, int]) -> Contrast:
    before, after = step
    names = f"the lead of {ahead[2].label} over {behind[2].label}"
    text = f"{where}, {names} at φ = {PHI[after]:g} against that at {PHI[before]:g}"
    return Contrast(text, (Cell(ahead, after), Cell(behind, before)), (Cell(behind, after), Cell(ahead, before)))
