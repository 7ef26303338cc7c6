"""The report: our scores beside the paper's, as Markdown, CSV and figures in one folder.

Everything is computed from `Scores`. What is missing there is missing here, and the text says so.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnlite.errors import NnliteError
from nnlite.paper.claims import CLAIMS, Decision, decide_claims
from nnlite.paper.closeness import DRAWS, FAR, Row, far_rows, median_difference, rank_correlation, table_rows
from nnlite.paper.comparisons import UNTESTED
from nnlite.paper.outcomes import OUTCOMES
from nnlite.paper.pictures import Digits, draw_figures
from nnlite.paper.scores import EXACT, NAIVE, SCORES, SCORES_HEAD, Scores, paper_scores
from nnlite.paper.tables import (
    ADVERSARIES,
    ADVERSARY_SOURCES,
    FAMILIES,
    FIGURE_3,
    IMAGES,
    MISSING,
    MODELS,
    PHI,
    Model,
)
from nnlite.storage.files import new_files

REPORT = "report.md"
_HEAD = ["model", *(f"φ = {size:g}" for size in PHI)]


def write_report(
    scores: Scores,
    folder: Path,
    facts: Mapping[str, str],
    digits: Digits | None = None,
    settled: Mapping[Model, tuple[int, int]] | None = None,
) -> Path:
    """Write report.md, tableN.csv, claims.csv, scores.csv and the figures into `folder`; return the path of report.md.

    The files are made beside their places and then moved in, report.md last. NnliteError: they cannot be written.

    Arguments:
        scores: what came out of the attacks.
        folder: is made where it is missing.
        facts: how the scores were made, such as command, seeds, epochs, versions, hours.
        digits: examples of the models of Figure 3 under their own noise, with their predictions; images are squares.
        settled: for each model its best epoch, and of how many.
    """
    try:
        with new_files(folder, last=REPORT) as place:
            figures = draw_figures(scores, digits or {}, place)
            _write_tables(scores, place)
            (place / REPORT).write_text(_text(scores, facts, settled or {}, figures), "utf-8")
    except OSError as error:
        advice = "free some space or choose another folder"
        raise NnliteError(f"report: cannot write to {folder} ({error.strerror}); {advice}") from error
    return folder / REPORT


# -- the CSV files


def _write_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *lines])


def _write_tables(scores: Scores, folder: Path) -> None:
    columns = [f"{what}_phi_{size:g}" for what in ("exact", "naive", "paper", "difference") for size in PHI]
    for number, adversary, _ in scores.tables:
        lines = [
            [
                adversary.slug,
                row.model.slug,
                row.seeds,
                *map(_cell, (*row.exact, *row.naive, *row.paper, *row.difference)),
            ]
            for row in table_rows(scores, number)
        ]
        _write_csv(folder / f"table{number}.csv", ["adversary", "model", "seeds", *columns], lines)
    _write_csv(folder / SCORES, SCORES_HEAD, scores.lines())
    _write_csv(
        folder / "claims.csv",
        [
            "number",
            "claim",
            "where_in_paper",
            *(f"{who}{what}" for who in ("", "naive_", "paper_") for what in ("verdict", "evidence")),
        ],
        (
            [ours.number, ours.claim.text, ours.claim.where_in_paper]
            + [text for one in (ours, naive, paper) for text in (one.verdict, one.evidence)]
            for ours, naive, paper in _decisions(scores)
        ),
    )


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{round(value, 4)}"


# -- the text


def _decisions(scores: Scores) -> list[tuple[Decision, Decision, Decision]]:
    """Return the decisions on each claim that our numbers can test, by exact and naive noise, and by the paper's."""
    every = zip(decide_claims(scores), decide_claims(scores.naive()), decide_claims(paper_scores()), strict=True)
    return [three for three in every if three[0].verdict != UNTESTED]


def _text(
    scores: Scores, facts: Mapping[str, str], settled: Mapping[Model, tuple[int, int]], figures: Sequence[int]
) -> str:
    sections = [
        "# The paper's results beside ours",
        _provenance(scores, facts),
        *_claims_section(scores),
        *_closeness_section(scores),
        *_far_section(scores, settled),
        *(_table_section(scores, number) for number in ADVERSARIES),
        *(_figure_section(scores, number, figures) for number in (1, 2, 3)),
        _files_section(scores),
    ]
    return "\n\n".join(sections) + "\n"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]], rule: str = "---:") -> str:
    """Return a table; its first column is aligned to the left, and the others to the right by default."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---", *[rule] * (len(head) - 1)], *lines])


_TRAP = (
    "R1 noise is crafted twice. The attack follows the error at the logits, p - onehot. On an example that the net is "
    "sure of, p of the true class rounds to 1 in float32, its error to 0, and the input gradient points in a wrong "
    "direction: this naive error makes a net look more robust than it is. Written as minus the sum of the others, the "
    "error keeps its digits: this exact error is the truth about a net. The paper's figures look like naive ones (its "
    "code is not public, so that is a guess from numbers), so the naive column is the one to hold beside them."
)


def _provenance(scores: Scores, facts: Mapping[str, str]) -> str:
    models = {model for adversary, _, victim in scores.values for model in (adversary, victim)}
    beyond = len(models & {*MISSING})
    more = f", and {beyond} that its tables lack" if beyond else ""
    lines = [
        "The paper: Ororbia, Giles, Kifer, *Unifying Adversarial Training Algorithms with Flexible Deep Data Gradient "
        "Regularization*, 2016. Accuracies are percentages of the test set. Noise is not clipped to [0, 1].",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        f"- models: {len(models) - beyond} of the paper's {len(MODELS)}{more}",
        f"- test images: {scores.images:,}",
        "",
        _TRAP,
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
    decisions = _decisions(scores)
    for ours, naive, paper in decisions:
        verdicts = (f"**{ours.verdict}**", naive.verdict, paper.verdict)
        counts = (one.count for one in (ours, naive, paper))
        cells = (f"{verdict} {count}".strip() for verdict, count in zip(verdicts, counts, strict=True))
        lines.append([str(ours.number), ours.claim.text, ours.claim.where_in_paper, *cells])
        evidence.append(
            f"{ours.number}. {ours.claim.text}.\n"
            f"   - Exact error: **{ours.verdict}**. {_sentence(ours.evidence)}\n"
            f"   - Naive error: {_said(naive) if naive.evidence != ours.evidence else 'the same.'}\n"
            f"   - The paper's own numbers: {_said(paper)}"
        )
    title = "## The claims"
    if not lines:
        return [title, "None of them can be tested with these models and attacks."]
    head = ["", "claim", "where in the paper", "exact error", "naive error", "the paper's own numbers"]
    missing = len(CLAIMS) - len(decisions)
    left = f" {missing} of the {len(CLAIMS)} claims need other models or attacks and are left out." if missing else ""
    text = (
        "After each verdict: how many comparisons hold / fail / are open, and of how many where models are missing."
        + left
    )
    rules = f"{_how_decided(scores)} {_RULE}"
    return [title, _markdown(head, lines, "---"), text, rules, "### The evidence", "\n".join(evidence)]


def _said(decision: Decision) -> str:
    return f"{decision.verdict}. {_sentence(decision.evidence)}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


_RULE = (
    "Holm's correction makes all comparisons of a claim wrong together in 5 of 100 cases at most; the intervals shown "
    "are those of one comparison. A claim holds if every comparison is clearly above 0, and does not hold if one is "
    "clearly below; else it is too close to call. So a claim of many comparisons is a strict one: see how many hold. "
    "The best row of a family is the one with the highest mean accuracy at φ = 0.1 over the tables, or on clean "
    "images where these are meant. It is chosen by the numbers that it is then judged by, which flatters both sides a "
    "little. The paper's own numbers are its Tables 1-8: single runs, 10,000 images, R1 noise only, and no outcome of "
    "any image, so they are compared as if each model had met other images, by Newcombe's interval."
)


def _how_decided(scores: Scores) -> str:
    seeds = {len(accuracy) for accuracy in scores.values.values()}
    text = (
        "How a claim is decided. Each comparison is a difference of accuracies with a 95 % confidence interval. Two "
        "models are compared on the same images, by those that only one of them gets right (McNemar's test, with the "
        "interval of Agresti and Min)"
    )
    if scores.correct.keys() != scores.values.keys():
        text += (
            "; where the outcomes of the images were not kept, as by nnlite 0.1.0, by Newcombe's interval of two "
            "independent accuracies, which is wider"
        )
    if max(seeds, default=1) == 1:
        return (
            f"{text}. There is one seed, so the spread between seeds is **not** in the interval: it says nothing about "
            "how another training would come out."
        )
    mixed = " Where a model has one seed, its spread between seeds is **not** in the interval." if 1 in seeds else ""
    return (
        f"{text}, with the variance of the mean over seeds added; the quantile is Student's t, so two or three seeds "
        f"make wide intervals.{mixed}"
    )


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"


def _closeness_section(scores: Scores) -> list[str]:
    title = "## How close the tables come"
    if not scores.tables:
        return [title, "No table was made."]
    off = [
        [f"{name} error", *map(_number, median_difference(scores, noise))]
        for name, noise in (("naive", NAIVE), ("exact", EXACT))
    ]
    lines = []
    for number, adversary, _ in scores.tables:
        rows = table_rows(scores, number)
        count = sum(row.model not in MISSING for row in rows)
        line = [f"[Table {number}](#table-{number})", adversary.label, str(count)]
        lines.append([*line, *(_rank(rows, column) for column in range(len(PHI)))])
    return [
        title,
        "The median absolute difference to the paper's cells, in points:",
        _markdown(["", *_HEAD[1:]], off),
        "The order of the rows. Each cell is Spearman's rank correlation with the paper's column, 1 for the same "
        f"order, of the naive accuracies [95 % interval: {DRAWS:,} bootstrap draws of the rows] and, after the "
        "semicolon, of the exact ones:",
        _markdown(["table", "adversary", "rows", *_HEAD[1:]], lines),
        *_family_order(scores),
    ]


def _rank(rows: Sequence[Row], column: int) -> str:
    paper = [float(row.paper[column]) for row in rows]
    naive, exact = (
        rank_correlation([float(values[column]) for values in side], paper)
        for side in ([row.naive for row in rows], [row.exact for row in rows])
    )
    if np.isnan(naive.found):
        return f"-; {_number(exact.found)}"
    return f"{naive.found:.2f} [{naive.low:.2f}, {naive.high:.2f}]; {_number(exact.found)}"


def _family_order(scores: Scores) -> list[str]:
    """Say how the families rank under Rect's attack at phi 0.1, ours and the paper's, on the same rows."""
    rows = [row for row in table_rows(scores, 1) if row.model not in MISSING]
    if not rows:
        return []

    def ranked(accuracy: Callable[[Row], float]) -> str:
        groups = {family: [accuracy(row) for row in rows if row.model.family == family] for family in FAMILIES}
        best = {family: max(found) for family, found in groups.items() if found}
        order = sorted(best, key=lambda family: -best[family])
        return ", ".join(f"{family} {best[family]:.2f}" for family in order)

    naive = [f"- naive error: {ranked(lambda row: float(row.naive[-1]))}"] if not np.isnan(rows[0].naive[-1]) else []
    return [
        "The families under Rect's attack at φ = 0.1, each by its best row:\n\n"
        + "\n".join(
            [
                f"- exact error: {ranked(lambda row: float(row.exact[-1]))}",
                *naive,
                f"- the paper's, on the same rows: {ranked(lambda row: float(row.paper[-1]))}",
            ]
        )
    ]


def _far_section(scores: Scores, settled: Mapping[Model, tuple[int, int]]) -> list[str]:
    """List the rows that stay far off, and whether their nets had settled; other data have none to list."""
    if scores.images != IMAGES:
        return []
    title = f"## Rows that stay more than {FAR:g} points off"
    lines = []
    for one in far_rows(scores):
        best, epochs = settled.get(one.model, (0, 0))
        number, size = one.worst
        cells = (
            f"{one.cells} of {one.of}",
            f"Table {number}, φ = {size:g}",
            f"{one.off:+.2f}",
            f"{one.exact_off:+.2f}",
        )
        lines.append([one.model.label, *cells, f"{best} of {epochs}" if epochs else "-", _settled(best, epochs)])
    if not lines:
        return [title, "None."] if scores.tables else []
    head = ["row", "cells", "the furthest", "off, naive", "off, exact", "best epoch", "validation"]
    text = (
        "Off is ours less the paper's, in points. A net whose best validation epoch is among the last tenth was still "
        "rising on clean images when it was stopped: too few epochs may be the cause, and more of them "
        "(`--family-epochs`) test that. Of a net that had settled the learning rate, the paper's number of epochs and "
        "its other seed remain, none of which the paper gives."
    )
    return [title, _markdown(head, lines), text]


def _settled(best: int, epochs: int) -> str:
    if not epochs:
        return "unknown"
    return "still rising" if best > 0.9 * epochs else "settled"


def _cells(row: Row) -> list[str]:
    return [_beside(*values) for values in zip(row.exact, row.naive, row.paper, strict=True)]


def _beside(exact: float, naive: float, paper: float) -> str:
    ours = _number(exact) if np.isnan(naive) or f"{naive:.2f}" == f"{exact:.2f}" else f"{exact:.2f} · {naive:.2f}"
    return ours if np.isnan(paper) else f"{ours} ({paper:.2f}, {(exact if np.isnan(naive) else naive) - paper:+z.2f})"


_EACH_CELL = (
    "Each cell: ours by the exact error · ours by the naive one, where that is another (the paper's, the naive one "
    "less the paper's)."
)


def _table_section(scores: Scores, number: int) -> str:
    adversary, rows = ADVERSARIES[number], table_rows(scores, number)
    title = f"## Table {number}\n\nThe adversary is {adversary.label} ({ADVERSARY_SOURCES[number]}), the noise R1."
    if not rows:
        return f"{title} Not made: there are no scores with this adversary."
    printed = [row for row in rows if row.model not in MISSING]
    best = {
        max(
            (row for row in printed if row.model.multitask == multitask), key=lambda row: float(row.exact[1:].mean())
        ).model
        for multitask in {row.model.multitask for row in printed}
    }
    names = {row.model: f"**{row.model.label}**" if row.model in best else row.model.label for row in rows}
    names |= {row.model: f"*{row.model.label}* (not in the paper)" for row in rows if row.model in MISSING}
    text = (
        f"{_EACH_CELL} Bold: our most robust single-task and multi-task row over all φ > 0, of those in the paper. "
        f"{len(printed)} of the paper's {len(MODELS)} rows. [CSV](table{number}.csv)"
    )
    return "\n\n".join([title, _markdown(_HEAD, [[names[row.model], *_cells(row)] for row in rows]), text])


_CAPTIONS = {
    1: "Each model is its own adversary, under R1 noise by the exact and, where it looks different, by the naive "
    "error, and under R2 noise. Each family is shown by the row that is best in the paper's tables, among those "
    "scored. The panel of R2 has an axis of its own.",
    2: "Rect and MT are the adversaries, R1 noise, by the exact error above and, where it looks different, by the "
    "naive one below. Each family is shown by the row that is best in the paper's tables, among those scored.",
    3: "Digits under each model's own R1 noise by the exact error, with what the model takes each for, white on "
    "colour where that is wrong, and its accuracy on the whole test set.",
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
        [model.label, *_cells(Row.of(scores, model, model, printed))]
        for model, printed in FIGURE_3.items()
        if (model, EXACT, model) in scores.values
    ]
    return [_markdown(_HEAD, lines), _EACH_CELL.replace("the paper's,", "the paper's Figure 3,")] if lines else []


def _files_section(scores: Scores) -> str:
    names = ["claims.csv", SCORES, *(f"table{number}.csv" for number, *_ in scores.tables)]
    files = ", ".join(f"[{name}]({name})" for name in names)
    kept = f" {OUTCOMES} beside it holds the outcome of each image." if scores.correct else ""
    return f"## The numbers\n\n{files}. scores.csv holds every accuracy of every seed; seeds are counted from 0.{kept}"
