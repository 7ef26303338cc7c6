"""The report: our scores beside the paper's, as Markdown, CSV and figures in one folder.

Everything is computed from `Scores`. What is absent there is absent here, and the text says so.
"""

import csv
import functools
import io
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.evaluation.pictures import Line, Strip, plot_panels, plot_strips
from nnlite.paper.tables import (
    ADVERSARIES,
    ADVERSARY_SOURCES,
    FAMILIES,
    FIGURE_3,
    IMAGES,
    MODELS,
    PHI,
    Claim,
    Model,
    Percent,
    Scores,
    best_of_families,
    claims,
    paper_accuracy,
    paper_scores,
)
from nnlite.storage.files import read_file

REPORT = "report.md"
SCORES = "scores.csv"
SCORES_LIMIT = 1 << 23  # bytes; all tables of the paper take 34,000
_HEAD = ["model", *(f"φ = {size:g}" for size in PHI)]


class Row(NamedTuple):
    """One row of a table: ours, as a mean over `seeds`, the paper's, and ours less the paper's, shape (phi,)."""

    model: Model
    seeds: int
    ours: Percent
    paper: Percent
    difference: Percent


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation of our rows with the paper's; NaN for fewer than three rows or equal ones."""

    at_largest_phi: float
    mean_over_noise: float
    rows: int


def table_rows(scores: Scores, number: int) -> list[Row]:
    """Return the rows of table `number` for which there are scores, in the paper's order."""
    adversary = ADVERSARIES[number]
    rows = []
    for model in scores.victims(adversary):
        accuracy = scores.values[adversary, "r1", model]
        ours, paper = accuracy.mean(axis=0), np.array(paper_accuracy(number, model))
        rows.append(Row(model, len(accuracy), ours, paper, ours - paper))
    return rows


def rank_correlation(rows: Sequence[Row]) -> RankCorrelation:
    """Compare the order of `rows` with the paper's: at phi 0.1, and by the mean over all phi above 0."""
    at_largest = _spearman([row.ours[-1] for row in rows], [row.paper[-1] for row in rows])
    over_noise = _spearman([_robustness(row.ours) for row in rows], [_robustness(row.paper) for row in rows])
    return RankCorrelation(at_largest, over_noise, len(rows))


def write_report(
    scores: Scores,
    folder: Path,
    facts: Mapping[str, str],
    naive: Percent | None = None,
    digits: Mapping[Model, npt.NDArray[np.floating]] | None = None,
) -> Path:
    """Write report.md, tableN.csv, claims.csv, scores.csv and the figures into `folder`; return report.md's path.

    facts: how the scores were made, such as command, seeds, epochs, versions, hours. naive: accuracies (phi,) of
    Rect under its own R1 noise with the logit error p - 1, over the same seeds. digits: images (n, phi, D) under
    their own noise for the models of Figure 3, D a square.

    The files are made beside their places and then moved in, report.md last. NnliteError: they cannot be written.
    """
    place = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
        figures = _draw_figures(scores, digits or {}, place)
        _write_tables(scores, place)
        (place / REPORT).write_text(_text(scores, facts, naive, figures), "utf-8")
        for path in sorted(place.iterdir(), key=lambda path: path.name == REPORT):
            os.replace(path, folder / path.name)
    except OSError as error:
        advice = "free some space or choose another folder"
        raise NnliteError(f"report: cannot write to {folder} ({error.strerror}); {advice}") from error
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)
    return folder / REPORT


def read_scores(folder: Path) -> dict[tuple[Model, str, Model], Percent]:
    """Return the accuracies (seeds, phi) in the scores.csv of `folder`, by adversary, noise and victim; {} without one.

    NnliteError: the file is damaged.
    """
    path = folder / SCORES
    slugs = {model.slug: model for model in MODELS}
    found: dict[tuple[Model, str, Model], dict[tuple[int, float], float]] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_file(path, SCORES_LIMIT).decode("utf-8"))):
            key = slugs[row["adversary"]], row["noise"], slugs[row["victim"]]
            found.setdefault(key, {})[int(row["seed"]), float(row["phi"])] = float(row["accuracy"])
        return {
            key: np.array([[cells[seed, size] for size in PHI] for seed in range(len(cells) // len(PHI))])
            for key, cells in found.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise NnliteError(f"{path}: damaged ({type(error).__name__}: {error}); delete it to attack again") from error


def _robustness(accuracy: Percent) -> float:
    return float(accuracy[1:].mean())


def _spearman(ours: Sequence[float], paper: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    if len(ours) < 3 or len(set(ours)) == 1 or len(set(paper)) == 1:
        return math.nan
    return float(spearmanr(ours, paper).statistic)


# -- the figures


def _line(scores: Scores, adversary: Model, noise: str, victim: Model) -> Line:
    accuracy = scores.values[adversary, noise, victim].mean(axis=0)
    return Line(victim.label, victim.reg, victim.multitask, accuracy)


def _figure_1(scores: Scores) -> dict[str, list[Line]]:
    """Each model its own adversary; the best model of each family with R2 scores, in both panels."""
    chosen = best_of_families(scores.self_attacked("r2"))
    panels = {
        title: [_line(scores, model, noise, model) for model in chosen if (model, noise, model) in scores.values]
        for title, noise in (("(a) R1 noise from the model itself", "r1"), ("(b) R2 noise from the model itself", "r2"))
    }
    return {title: lines for title, lines in panels.items() if lines}


def _figure_2(scores: Scores) -> dict[str, list[Line]]:
    """Rect and MT as adversaries of the best model of each family."""
    return {
        title: [_line(scores, adversary, "r1", model) for model in best_of_families(scores.victims(adversary))]
        for title, adversary in (("(a) Rect is the adversary", Model("Rect")), ("(b) MT is the adversary", Model("MT")))
        if scores.victims(adversary)
    }


def _draw_figures(scores: Scores, digits: Mapping[Model, npt.NDArray[np.floating]], folder: Path) -> list[int]:
    """Draw each figure that there are scores for, as PNG and SVG; return their numbers."""
    strips = [
        Strip(model.label, model.reg, digits[model], scores.values[model, "r1", model].mean(axis=0))
        for model in FIGURE_3
        if model in digits and (model, "r1", model) in scores.values
    ]
    drawings: dict[int, Callable[[Path], None]] = {}
    for number, panels in ((1, _figure_1(scores)), (2, _figure_2(scores))):
        if panels:
            drawings[number] = functools.partial(plot_panels, PHI, panels)
    if strips:
        side = math.isqrt(strips[0].images.shape[-1])
        drawings[3] = functools.partial(plot_strips, PHI, strips, (side, side))
    for number, draw in drawings.items():
        for ending in ("png", "svg"):
            draw(folder / f"figure{number}.{ending}")
    return list(drawings)


# -- the CSV files


def _write_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *lines])


def _write_tables(scores: Scores, folder: Path) -> None:
    columns = [f"{what}_phi_{size:g}" for what in ("ours", "paper", "difference") for size in PHI]
    for number, adversary, _ in scores.tables():
        lines = [
            [adversary.slug, row.model.slug, row.seeds, *np.round([*row.ours, *row.paper, *row.difference], 4).tolist()]
            for row in table_rows(scores, number)
        ]
        _write_csv(folder / f"table{number}.csv", ["adversary", "model", "seeds", *columns], lines)
    _write_csv(
        folder / SCORES,
        ["adversary", "noise", "victim", "seed", "phi", "accuracy"],
        (
            [adversary.slug, noise, victim.slug, seed, size, float(value)]
            for (adversary, noise, victim), accuracy in scores.values.items()
            for seed, values in enumerate(accuracy)
            for size, value in zip(PHI, values, strict=True)
        ),
    )
    _write_csv(
        folder / "claims.csv",
        ["claim", "where_in_paper", "verdict", "evidence", "paper_verdict", "paper_evidence"],
        (
            [ours.text, ours.where_in_paper, ours.verdict, ours.evidence, paper.verdict, paper.evidence]
            for ours, paper in _both(scores)
        ),
    )


# -- the text


def _both(scores: Scores) -> list[tuple[Claim, Claim]]:
    """Return each claim as our numbers decide it and as the paper's own do."""
    return list(zip(claims(scores), claims(paper_scores()), strict=True))


def _text(scores: Scores, facts: Mapping[str, str], naive: Percent | None, figures: Sequence[int]) -> str:
    sections = [
        "# The paper's results beside ours",
        _provenance(scores, facts),
        _claims_section(scores),
        _closeness_section(scores),
        *(_table_section(scores, number) for number in ADVERSARIES),
        *(_figure_section(scores, number, figures) for number in (1, 2, 3)),
        _float32_section(scores, naive),
        _files_section(scores),
    ]
    return "\n\n".join(sections) + "\n"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table; its first column is text, the others stand to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def _provenance(scores: Scores, facts: Mapping[str, str]) -> str:
    models = {model for adversary, _, victim in scores.values for model in (adversary, victim)}
    lines = [
        "The paper: Ororbia, Giles, Kifer, *Unifying Adversarial Training Algorithms with Flexible Deep Data Gradient "
        "Regularization*, 2016. Accuracies are percentages of the test set. Noise is not clipped to [0, 1].",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        f"- models: {len(models)} of the paper's {len(MODELS)}",
        f"- test images: {scores.images:,}",
    ]
    if scores.images != IMAGES:
        lines += [
            "",
            f"The paper's figures are for MNIST and its {IMAGES:,} test images. These are other data: the order of the "
            "models can be compared, the figures themselves cannot.",
        ]
    return "\n".join(lines)


def _claims_section(scores: Scores) -> str:
    both = _both(scores)
    table = [
        [str(k), ours.text, ours.where_in_paper, f"**{ours.verdict}**", paper.verdict]
        for k, (ours, paper) in enumerate(both, 1)
    ]
    evidence = [
        f"{k}. {ours.text}.\n   - Ours: **{ours.verdict}**. {_sentence(ours.evidence)}\n"
        f"   - The paper's own numbers: {paper.verdict}. {_sentence(paper.evidence)}"
        for k, (ours, paper) in enumerate(both, 1)
    ]
    head = ["", "claim", "where in the paper", "our numbers", "the paper's own numbers"]
    return "\n\n".join(
        [
            "## The claims",
            "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *table]),
            _how_decided(scores),
            "### The evidence",
            "\n".join(evidence),
        ]
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


_RULE = """A claim holds if every comparison is clearly above 0, and does not hold if one is clearly below; else it is
too close to call. A claim of many comparisons is therefore a strict one: see how many hold. The best row of a
family is the one with the highest mean accuracy at φ = 0.1 over the tables. It is chosen by the numbers that it is
then judged by, which flatters both sides a little. The paper's own numbers are its Tables 1-8: single runs, 10,000
images, R1 noise only."""


def _how_decided(scores: Scores) -> str:
    seeds = {len(accuracy) for accuracy in scores.values.values()}
    text = (
        "How a claim is decided. Each comparison is a difference of two accuracies with a 95 % confidence interval. "
        "Its variance is the binomial variance of both over images"
    )
    if max(seeds, default=1) > 1:
        text += (
            ", and the variance of both means over seeds; the quantile is Student's t, so two or three seeds make wide "
            "intervals."
        )
        if 1 in seeds:
            text += " Where a model has one seed, its spread between seeds is **not** in the interval."
    else:
        text += (
            ". There is one seed, so the spread between seeds is **not** in the interval: it says nothing of how "
            "another training would come out."
        )
    return f"{text} {_flat(_RULE)}"


def _flat(text: str) -> str:
    return text.replace("\n", " ")


def _number(value: float, form: str = ".2f") -> str:
    return "-" if math.isnan(value) else format(value, form)


def _closeness_section(scores: Scores) -> str:
    lines = []
    for number, adversary, _ in scores.tables():
        rows = table_rows(scores, number)
        ranks = rank_correlation(rows)
        clean, noisy = (float(np.mean([abs(row.difference[column]) for row in rows])) for column in (0, -1))
        figures = [_number(ranks.at_largest_phi), _number(ranks.mean_over_noise), f"{clean:.2f}", f"{noisy:.2f}"]
        lines.append([f"[Table {number}](#table-{number})", adversary.label, str(ranks.rows), *figures])
    if not lines:
        return "## How close the tables come\n\nNo table was made."
    head = ["table", "adversary", "rows", "rank, φ = 0.1", "rank, mean φ > 0", "off, φ = 0", "off, φ = 0.1"]
    text = (
        "Rank is Spearman's rank correlation of our rows with the paper's: 1 is the same order. It needs three rows. "
        "Off is the mean absolute difference in points."
    )
    return "\n\n".join(["## How close the tables come", _markdown(head, lines), text, *_family_order(scores)])


def _family_order(scores: Scores) -> list[str]:
    """Say how the families rank under Rect's attack at phi 0.1, ours and the paper's, on the same rows."""
    rows = {row.model: row for row in table_rows(scores, 1)}
    if not rows:
        return []

    def ranked(accuracy: Callable[[Row], float]) -> str:
        best = {
            family: max(accuracy(row) for model, row in rows.items() if model.family == family)
            for family in FAMILIES
            if any(model.family == family for model in rows)
        }
        order = sorted(best, key=lambda family: -best[family])
        return ", ".join(f"{family} {best[family]:.2f}" for family in order)

    return [
        "The families under Rect's attack at φ = 0.1, each by its best row:\n\n"
        f"- ours: {ranked(lambda row: float(row.ours[-1]))}\n"
        f"- the paper's, on the same rows: {ranked(lambda row: float(row.paper[-1]))}"
    ]


def _cells(row: Row) -> list[str]:
    triples = zip(row.ours, row.paper, row.difference, strict=True)
    return [f"{ours:.2f} ({paper:.2f}, {difference:+z.2f})" for ours, paper, difference in triples]


def _table_section(scores: Scores, number: int) -> str:
    adversary, rows = ADVERSARIES[number], table_rows(scores, number)
    title = f"## Table {number}\n\nThe adversary is {adversary.label} ({ADVERSARY_SOURCES[number]}), the noise R1."
    if not rows:
        return f"{title} Not made: there are no scores with this adversary."
    ranks = rank_correlation(rows)
    best = {
        max((row for row in rows if row.model.multitask == multitask), key=lambda row: _robustness(row.ours)).model
        for multitask in {row.model.multitask for row in rows}
    }
    names = {row.model: f"**{row.model.label}**" if row.model in best else row.model.label for row in rows}
    text = (
        f"Each cell is ours (the paper's, the difference). Bold: our most robust single-task and multi-task row over "
        f"all φ > 0. {ranks.rows} of the paper's {len(MODELS)} rows; rank correlation {_number(ranks.at_largest_phi)} "
        f"at φ = 0.1, {_number(ranks.mean_over_noise)} for the mean over φ > 0. [CSV](table{number}.csv)"
    )
    return "\n\n".join([title, _markdown(_HEAD, [[names[row.model], *_cells(row)] for row in rows]), text])


_CAPTIONS = {
    1: "Each model is its own adversary, under R1 and under R2 noise. Of each family the row that is best in the "
    "paper's tables, among those scored. The second panel has an axis of its own.",
    2: "Rect and MT are the adversaries, R1 noise. Of each family the row that is best in the paper's tables, among "
    "those scored.",
    3: "Digits under each model's own R1 noise, and its accuracy on the whole test set.",
}


def _figure_section(scores: Scores, number: int, figures: Sequence[int]) -> str:
    parts = [f"## Figure {number}", _CAPTIONS[number]]
    if number in figures:
        parts += [f"![Figure {number}](figure{number}.png)", f"[SVG](figure{number}.svg)"]
    else:
        parts += ["Not drawn: there are no scores for it."]
    if number == 3:
        parts += _figure_3_table(scores)
    return "\n\n".join(parts)


def _figure_3_table(scores: Scores) -> list[str]:
    rows = []
    for model, printed in FIGURE_3.items():
        if (model, "r1", model) in scores.values:
            accuracy, paper = scores.values[model, "r1", model], np.array(printed)
            rows.append(Row(model, len(accuracy), accuracy.mean(axis=0), paper, accuracy.mean(axis=0) - paper))
    lines = [[row.model.label, *_cells(row)] for row in rows]
    return [_markdown(_HEAD, lines), "Each cell is ours (the paper's Figure 3, the difference)."] if rows else []


_TRAP = """The attack follows the error at the logits, p - onehot. On an example that the net is sure of, p of the true
class rounds to 1 in float32. The true class then has the error 0, while the tiny errors of the others are kept. The
input gradient points in a wrong direction, and the net looks more robust than it is. Written as minus the sum of the
others, the true class's error keeps its digits. All other figures here are made so. Rect attacking itself, R1:"""


def _float32_section(scores: Scores, naive: Percent | None) -> str:
    title = "## The float32 trap"
    rect = Model("Rect")
    if naive is None or (rect, "r1", rect) not in scores.values:
        return f"{title}\n\nNot made: it needs Rect's attack on itself, with our logit error and with the naive one."
    ours, paper = scores.values[rect, "r1", rect].mean(axis=0), np.array(paper_accuracy(1, rect))
    rows = {"float32, p - 1": naive, "ours: float32, minus the sum of the others": ours, "the paper's Rect": paper}
    return "\n\n".join(
        [
            title,
            _flat(_TRAP),
            _markdown(
                ["logit error", *_HEAD[1:]],
                [[name, *(f"{value:.2f}" for value in values)] for name, values in rows.items()],
            ),
            _what_the_trap_means(naive, ours, paper if scores.images == IMAGES else None),
        ]
    )


def _what_the_trap_means(naive: Percent, ours: Percent, paper: Percent | None) -> str:
    """Say how much the naive error hides and, where the data are the paper's, which one its figure is nearer to."""
    gaps = naive - ours
    column = int(np.abs(gaps).argmax())
    if abs(gaps[column]) < 0.5:
        return "The two attacks agree within half a point at every φ: the trap does not show on this net."
    effect = "of robustness that is not there" if gaps[column] > 0 else "less than with ours: the trap hid no attack"
    text = (
        f"The difference is largest at φ = {PHI[column]:g}: with the naive error the net keeps {naive[column]:.2f} %, "
        f"with ours {ours[column]:.2f} %. That is {abs(gaps[column]):.2f} points {effect}."
    )
    if paper is None:
        return text
    nearer = "the naive error" if abs(naive[column] - paper[column]) < abs(ours[column] - paper[column]) else "ours"
    return (
        f"{text} The paper's {paper[column]:.2f} % there is nearer to {nearer}. Its code is not public, so which error "
        "it used is a guess from numbers."
    )


def _files_section(scores: Scores) -> str:
    tables = [f"table{number}.csv" for number, *_ in scores.tables()]
    files = ", ".join(f"[{name}]({name})" for name in ["claims.csv", "scores.csv", *tables])
    return f"## The numbers\n\n{files}. In scores.csv stands every accuracy of every seed; seeds are counted from 0."
