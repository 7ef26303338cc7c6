"""The report: our scores beside the paper's, as Markdown, CSV and figures in one folder.

Everything is computed from `Scores`. What is missing there is missing here, and the text says so.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnlite.errors import NnliteError
from nnlite.paper.claims import Decision, decide_claims
from nnlite.paper.pictures import Digits, draw_figures
from nnlite.paper.scores import SCORES, SCORES_HEAD, Percent, Scores, paper_scores
from nnlite.paper.tables import (
    ADVERSARIES,
    ADVERSARY_SOURCES,
    FAMILIES,
    FIGURE_3,
    IMAGES,
    MODELS,
    PHI,
    Model,
    paper_accuracy,
)
from nnlite.storage.files import new_files

REPORT = "report.md"
_HEAD = ["model", *(f"φ = {size:g}" for size in PHI)]


class Row(NamedTuple):
    """One row of a table: our accuracies as a mean over `seeds`, the paper's, and their difference, each (phi,)."""

    model: Model
    seeds: int
    ours: Percent
    paper: Percent
    difference: Percent

    @classmethod
    def of(cls, model: Model, accuracy: Percent, paper: Sequence[float]) -> "Row":
        """Return the row of our accuracies (seeds, phi) beside the paper's (phi,)."""
        ours = accuracy.mean(axis=0)
        return cls(model, len(accuracy), ours, np.array(paper), ours - paper)


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation of our rows with the paper's; NaN for fewer than three rows or equal ones."""

    at_largest_phi: float
    mean_over_noise: float
    rows: int


def table_rows(scores: Scores, number: int) -> list[Row]:
    """Return the rows of table `number` for which there are scores, in the paper's order."""
    adversary = ADVERSARIES[number]
    return [
        Row.of(model, scores.values[adversary, "r1", model], paper_accuracy(number, model))
        for model in scores.victims(adversary)
    ]


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
    digits: Digits | None = None,
) -> Path:
    """Write report.md, tableN.csv, claims.csv, scores.csv and the figures into `folder`; return the path of report.md.

    The files are made beside their places and then moved in, report.md last. NnliteError: they cannot be written.

    Arguments:
        scores: what came out of the attacks.
        folder: is made where it is missing.
        facts: how the scores were made, such as command, seeds, epochs, versions, hours.
        naive: accuracies (phi,) of Rect under its own R1 noise with the logit error p - 1, over the same seeds.
        digits: images (n, phi, D) for the models of Figure 3 under their own noise, D a square.
    """
    try:
        with new_files(folder, last=REPORT) as place:
            figures = draw_figures(scores, digits or {}, place)
            _write_tables(scores, place)
            (place / REPORT).write_text(_text(scores, facts, naive, figures), "utf-8")
    except OSError as error:
        advice = "free some space or choose another folder"
        raise NnliteError(f"report: cannot write to {folder} ({error.strerror}); {advice}") from error
    return folder / REPORT


def _robustness(accuracy: Percent) -> float:
    return float(accuracy[1:].mean())


def _spearman(ours: Sequence[float], paper: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    if len(ours) < 3 or len(set(ours)) == 1 or len(set(paper)) == 1:
        return math.nan
    return float(spearmanr(ours, paper).statistic)


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
    _write_csv(folder / SCORES, SCORES_HEAD, scores.lines())
    _write_csv(
        folder / "claims.csv",
        ["claim", "where_in_paper", "verdict", "evidence", "paper_verdict", "paper_evidence"],
        (
            [ours.claim.text, ours.claim.where_in_paper, ours.verdict, ours.evidence, paper.verdict, paper.evidence]
            for ours, paper in _decisions(scores)
        ),
    )


# -- the text


def _decisions(scores: Scores) -> list[tuple[Decision, Decision]]:
    """Return the decision on each claim by our numbers and by the paper's own."""
    return list(zip(decide_claims(scores), decide_claims(paper_scores()), strict=True))


def _text(scores: Scores, facts: Mapping[str, str], naive: Percent | None, figures: Sequence[int]) -> str:
    sections = [
        "# The paper's results beside ours",
        _provenance(scores, facts),
        *_claims_section(scores),
        *_closeness_section(scores),
        *(_table_section(scores, number) for number in ADVERSARIES),
        *(_figure_section(scores, number, figures) for number in (1, 2, 3)),
        *_float32_section(scores, naive),
        _files_section(scores),
    ]
    return "\n\n".join(sections) + "\n"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]], rule: str = "---:") -> str:
    """Return a table; its first column is aligned to the left, and the others to the right by default."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---", *[rule] * (len(head) - 1)], *lines])


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
            "models can be compared, but not the figures themselves.",
        ]
    return "\n".join(lines)


def _claims_section(scores: Scores) -> list[str]:
    lines, evidence = [], []
    for k, (ours, paper) in enumerate(_decisions(scores), 1):
        lines.append([str(k), ours.claim.text, ours.claim.where_in_paper, f"**{ours.verdict}**", paper.verdict])
        evidence.append(
            f"{k}. {ours.claim.text}.\n   - Ours: **{ours.verdict}**. {_sentence(ours.evidence)}\n"
            f"   - The paper's own numbers: {paper.verdict}. {_sentence(paper.evidence)}"
        )
    head = ["", "claim", "where in the paper", "our numbers", "the paper's own numbers"]
    rules = f"{_how_decided(scores)} {_RULE}"
    return ["## The claims", _markdown(head, lines, "---"), rules, "### The evidence", "\n".join(evidence)]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


_RULE = (
    "A claim holds if every comparison is clearly above 0, and does not hold if one is clearly below; else it is too "
    "close to call. So a claim of many comparisons is a strict one: see how many hold. The best row of a family is "
    "the one with the highest mean accuracy at φ = 0.1 over the tables. It is chosen by the numbers that it is then "
    "judged by, which flatters both sides a little. The paper's own numbers are its Tables 1-8: single runs, 10,000 "
    "images, R1 noise only."
)


def _how_decided(scores: Scores) -> str:
    seeds = {len(accuracy) for accuracy in scores.values.values()}
    text = (
        "How a claim is decided. Each comparison is a difference of two accuracies with a 95 % confidence interval: "
        "Newcombe's, made of the Wilson interval of either accuracy over images"
    )
    if max(seeds, default=1) == 1:
        return (
            f"{text}. There is one seed, so the spread between seeds is **not** in the interval: it says nothing about "
            "how another training would come out."
        )
    mixed = " Where a model has one seed, its spread between seeds is **not** in the interval." if 1 in seeds else ""
    return (
        f"{text}, with the variance of both means over seeds added; the quantile is Student's t, so two or three seeds "
        f"make wide intervals.{mixed}"
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _closeness_section(scores: Scores) -> list[str]:
    lines = []
    for number, adversary, _ in scores.tables():
        rows = table_rows(scores, number)
        ranks = rank_correlation(rows)
        clean, noisy = (float(np.mean([abs(row.difference[column]) for row in rows])) for column in (0, -1))
        figures = map(_number, (ranks.at_largest_phi, ranks.mean_over_noise, clean, noisy))
        lines.append([f"[Table {number}](#table-{number})", adversary.label, str(ranks.rows), *figures])
    title = "## How close the tables come"
    if not lines:
        return [title, "No table was made."]
    head = ["table", "adversary", "rows", "rank, φ = 0.1", "rank, mean φ > 0", "off, φ = 0", "off, φ = 0.1"]
    text = (
        "Rank is Spearman's rank correlation of our rows with the paper's: 1 is the same order. It needs three rows. "
        "Off is the mean absolute difference in points."
    )
    return [title, _markdown(head, lines), text, *_family_order(scores)]


def _family_order(scores: Scores) -> list[str]:
    """Say how the families rank under Rect's attack at phi 0.1, ours and the paper's, on the same rows."""
    rows = table_rows(scores, 1)
    if not rows:
        return []

    def ranked(accuracy: Callable[[Row], float]) -> str:
        groups = {family: [accuracy(row) for row in rows if row.model.family == family] for family in FAMILIES}
        best = {family: max(found) for family, found in groups.items() if found}
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
    1: "Each model is its own adversary, under R1 and under R2 noise. Each family is shown by the row that is best in "
    "the paper's tables, among those scored. The second panel has an axis of its own.",
    2: "Rect and MT are the adversaries, R1 noise. Each family is shown by the row that is best in the paper's tables, "
    "among those scored.",
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
    lines = [
        [model.label, *_cells(Row.of(model, scores.values[model, "r1", model], printed))]
        for model, printed in FIGURE_3.items()
        if (model, "r1", model) in scores.values
    ]
    return [_markdown(_HEAD, lines), "Each cell is ours (the paper's Figure 3, the difference)."] if lines else []


_TRAP = (
    "The attack follows the error at the logits, p - onehot. On an example that the net is sure of, p of the true "
    "class rounds to 1 in float32. Then the error of the true class is 0, while the tiny errors of the others are "
    "kept. The input gradient points in a wrong direction, and the net looks more robust than it is. Written as minus "
    "the sum of the others, the error of the true class keeps its digits. All other figures here are made that way. "
    "Rect attacking itself, R1:"
)


def _float32_section(scores: Scores, naive: Percent | None) -> list[str]:
    title, rect = "## The float32 trap", Model("Rect")
    if naive is None or (rect, "r1", rect) not in scores.values:
        return [title, "Not made: it needs Rect's attack on itself, with our logit error and with the naive one."]
    ours, paper = scores.values[rect, "r1", rect].mean(axis=0), np.array(paper_accuracy(1, rect))
    rows = {"float32, p - 1": naive, "ours: float32, minus the sum of the others": ours, "the paper's Rect": paper}
    table = _markdown(["logit error", *_HEAD[1:]], [[name, *map(_number, values)] for name, values in rows.items()])
    return [title, _TRAP, table, _what_the_trap_means(naive, ours, paper if scores.images == IMAGES else None)]


def _what_the_trap_means(naive: Percent, ours: Percent, paper: Percent | None) -> str:
    """Say how much the naive error hides and, on the paper's data, which of the two its figure is nearer to."""
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
    names = ["claims.csv", SCORES, *(f"table{number}.csv" for number, *_ in scores.tables())]
    files = ", ".join(f"[{name}]({name})" for name in names)
    return f"## The numbers\n\n{files}. scores.csv holds every accuracy of every seed; seeds are counted from 0."
