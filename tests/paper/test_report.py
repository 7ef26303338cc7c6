"""The report on scores whose answer is known: the paper's own, and a few made by hand."""

import csv
import dataclasses
import errno
import os
import re

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import Examples
from nnlite.paper import pictures, report
from nnlite.paper.claims import CLAIMS
from nnlite.paper.report import write_report
from nnlite.paper.scores import EXACT, NAIVE, Scores, paper_scores
from nnlite.paper.tables import BEST_MODELS, FIGURE_3, MODELS, PHI, Model, best_of_families, paper_accuracy

pytestmark = pytest.mark.once

RECT, MT, DGL1 = Model("Rect"), Model("MT"), Model("DGL1", 0.01, 0.1)
FACTS = {"command": "`nnlite reproduce all`", "hours": "1.5"}
MISSING = Model("DGL1", 0.1, 0.1)


def shifted(models, by):
    """The paper's scores of some models, two seeds, one point apart, their mean `by` points off."""
    values = {
        key: np.clip(np.concatenate([accuracy + by - 0.5, accuracy + by + 0.5]), 0, 100)
        for key, accuracy in paper_scores().values.items()
        if key[2] in models
    }
    return Scores(10_000, values)


def with_naive(scores, by):
    """The same scores, and naive ones beside them that are higher by so many points."""
    exact = {key: accuracy for key, accuracy in scores.values.items() if key[1] == EXACT}
    higher = {(one, NAIVE, other): np.clip(accuracy + by, 0, 100) for (one, _, other), accuracy in exact.items()}
    return Scores(scores.images, {**scores.values, **higher})


@pytest.fixture
def undrawn(monkeypatch):
    """Write an empty file in place of each figure; the real ones take a second."""
    monkeypatch.setattr(pictures, "plot_panels", lambda panels, path, columns: path.write_bytes(b""))
    monkeypatch.setattr(pictures, "plot_digits", lambda digits, accuracies, path: path.write_bytes(b""))


def examples(count, pixels):
    labels = np.arange(count)
    images = np.random.default_rng(0).random((count, 5, pixels))
    return Examples(PHI, images, labels, {"self": np.repeat(labels[:, None], 5, axis=1)})


def write(scores, folder, **more):
    return write_report(scores, folder, FACTS, **more).read_text("utf-8")


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- the report


@pytest.mark.usefixtures("undrawn")
def test_the_report_of_the_papers_own_scores(tmp_path):
    text = write(paper_scores(), tmp_path)
    assert "- command: `nnlite reproduce all`\n- hours: 1.5\n- models: 46 of the paper's 46" in text
    # every cell differs by nothing, and the best rows are those of the paper
    assert set(re.findall(r", ([+-]\d+\.\d\d)\) ", text)) == {"+0.00"}
    assert text.count("| **DGL1 λ = 0.01 φ = 0.1** |") == 7
    assert text.split("## Table 4")[1].split("## ")[0].count("| **DGL1 λ = 0.001 φ = 0.1** |") == 1
    assert text.count("| **MT-DGL1 λ = 0.1 φ = 0.1** |") == 8
    assert text.count("| 46 | -; 1.00 | -; 1.00 | -; 1.00 | -; 1.00 | -; 1.00 |") == 8
    assert "| exact error | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 |" in text
    # where the numbers are the paper's, so are the verdicts; what they cannot test is left out
    rows = re.findall(r"\| \*\*(.+?)\*\*(.*?) \| not tested \| (.+?) \|\n", text)
    assert len(rows) == 32
    assert all(ours + counts == paper for ours, counts, paper in rows)
    assert f"5 of the {len(CLAIMS)} claims need other models or attacks and are left out." in text
    assert "## Rows that stay more than 5 points off\n\nNone." in text
    assert "There is one seed, so the spread between seeds is **not** in the interval" in text
    for words in ("Figure 1", "Figure 3"):
        section = text.split(f"## {words}\n")[1].split("\n## ")[0]
        assert "Not drawn" in section
    assert "![Figure 2](figure2.png)" in text


@pytest.mark.usefixtures("undrawn")
def test_a_cell_holds_ours_the_papers_and_the_difference(tmp_path):
    text = write(shifted(BEST_MODELS, -1.25), tmp_path)
    assert "| Rect | 96.74 (97.99, -1.25) | 95.55 (96.80, -1.25) |" in text
    assert "18 of the paper's 46 rows" in text
    assert "the spread between seeds is **not**" not in text
    assert "| [Table 1](#table-1) | Rect | 18 | -; 1.00 | -; 1.00 | -; 1.00 | -; 1.00 | -; 1.00 |" in text
    assert "| exact error | 1.25 | 1.25 | 1.25 | 1.25 | 1.25 |" in text
    assert (
        "- exact error: MT-DGL1 96.25, DGL1 93.02, MT-DGL2 83.17, L1 73.10, L2 68.62, DGL2 18.59, MT 15.95, Rect 9.58"
        in text
    )


@pytest.mark.usefixtures("undrawn")
def test_both_arithmetics_stand_beside_the_papers(tmp_path):
    text = write(with_naive(shifted(BEST_MODELS, -9), 8), tmp_path)
    assert "| Rect | 88.99 · 96.99 (97.99, -1.00) |" in text
    assert "| naive error | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |" in text
    assert "| exact error | 9.00 | 9.00 | 9.00 | 9.00 | " in text
    assert re.search(r"\| \[Table 4\]\(#table-4\) \| .* \| 18 \| 1.00 \[1.00, 1.00\]; 1.00 \|", text)
    assert "- naive error: MT-DGL1 96.50" in text
    row = read_csv(tmp_path / "table1.csv")[-1]
    found = [float(row[f"{what}_phi_0.05"]) for what in ("exact", "naive", "paper", "difference")]
    assert found == [54.38, 62.38, 63.38, -1]


@pytest.mark.usefixtures("undrawn")
def test_where_the_arithmetics_agree_it_is_said_once(tmp_path):
    text = write(with_naive(shifted([RECT, MT], 0), 0), tmp_path)
    assert "| Rect | 97.99 (97.99, +0.00) |" in text
    assert "   - Naive error: the same.\n" in text


@pytest.mark.usefixtures("undrawn")
def test_a_row_that_the_paper_lacks_is_in_the_table_and_says_so(tmp_path):
    values = {key: accuracy for key, accuracy in shifted([RECT], 0).values.items() if key[0] == RECT}
    text = write(Scores(10_000, {**values, (RECT, EXACT, MISSING): np.full((1, 5), 90.0)}), tmp_path)
    assert "| *DGL1 λ = 0.1 φ = 0.1* (not in the paper) | 90.00 | 90.00 | 90.00 | 90.00 | 90.00 |" in text
    assert "- models: 1 of the paper's 46, and 1 that its tables lack" in text
    assert "1 of the paper's 46 rows." in text
    assert read_csv(tmp_path / "table1.csv")[0]["difference_phi_0.1"] == ""


@pytest.mark.usefixtures("undrawn")
def test_far_rows_are_listed_with_what_was_measured(tmp_path):
    scores = with_naive(shifted([RECT, MT], -9), 2)
    text = write(scores, tmp_path, settled={RECT: (29, 30), MT: (13, 200)})
    assert "-7.00 | -9.00 | 29 of 30 | still rising |" in text
    assert "-7.00 | -9.00 | 13 of 200 | settled |" in text
    assert "| Rect | 40 of 40 |" in text or "| Rect | 39 of 40 |" in text
    assert "## Rows that stay" not in write(Scores(500, scores.values), tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_only_claims_that_can_be_tested_are_reported(tmp_path):
    own = {(model, noise, model): np.full((1, 5), 95.0) for model in (RECT, MT) for noise in ("r1", "r2")}
    text = write(Scores(10_000, own), tmp_path)
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["20", "22", "24", "34", "35"]
    assert f"{len(CLAIMS) - 5} of the {len(CLAIMS)} claims need other models or attacks" in text
    assert len(read_csv(tmp_path / "claims.csv")) == 5


@pytest.mark.usefixtures("undrawn")
def test_which_interval_was_taken_is_said(tmp_path):
    correct = {(RECT, EXACT, model): np.ones((1, 5, 100), bool) for model in (RECT, MT)}
    assert "where the outcomes of the images were not kept" not in write(Scores.of(100, correct, {}), tmp_path)
    assert "where the outcomes of the images were not kept" in write(shifted([RECT, MT], 0), tmp_path)
    assert "outcomes.safetensors beside it" in write(Scores.of(100, correct, {}), tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_the_tables_say_who_attacks_and_how_that_is_known(tmp_path):
    text = write(paper_scores(), tmp_path)
    assert "The adversary is L2 λ = 0.01 (inferred: " in text
    assert "The adversary is L1 λ = 0.001 (Figure 3 prints this row as a self-attack; in Table 2 itself" in text


@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_is_said_and_never_fails(tmp_path):
    text = write(Scores(10_000, {}), tmp_path / "empty")
    assert "models: 0 of the paper's 46" in text
    assert text.count("Not made: there are no scores with this adversary.") == 8
    assert text.count("Not drawn") == 3
    assert "No table was made." in text
    text = write(Scores(10_000, {(MT, "r1", RECT): np.full((1, 5), 50.0)}), tmp_path / "one")
    assert text.count("Not made: there are no scores with this adversary.") == 7
    assert "| [Table 6](#table-6) | MT | 1 | -; - | -; - | -; - | -; - | -; - |" in text
    assert "The families under Rect's attack" not in text


@pytest.mark.usefixtures("undrawn")
def test_other_data_are_not_compared_figure_by_figure(tmp_path):
    assert "These are other data" not in write(shifted([RECT], 0), tmp_path)
    other = dataclasses.replace(shifted([RECT], 0), images=500)
    assert "These are other data" in write(other, tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_seeds_of_one_model_only_are_said(tmp_path):
    values = {(RECT, "r1", RECT): np.full((2, 5), 50.0), (RECT, "r1", MT): np.full((1, 5), 40.0)}
    assert "Where a model has one seed" in write(Scores(100, values), tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_the_csv_files_hold_every_number(tmp_path):
    scores = shifted([RECT, MT], 0.25)
    write(scores, tmp_path)
    raw = read_csv(tmp_path / "scores.csv")
    assert len(raw) == 8 * 2 * 2 * 5
    by_slug = {model.slug: model for model in MODELS}
    for line in raw:
        accuracy = scores.values[by_slug[line["adversary"]], line["noise"], by_slug[line["victim"]]]
        assert float(line["accuracy"]) == accuracy[int(line["seed"]), PHI.index(float(line["phi"]))]
    rect, mt = read_csv(tmp_path / "table6.csv")
    assert (rect["adversary"], rect["model"], rect["seeds"]) == ("mt", "rect", "2")
    assert [float(mt[f"paper_phi_{size:g}"]) for size in PHI] == list(paper_accuracy(6, MT))
    assert float(mt["difference_phi_0.005"]) == 0.25
    found = read_csv(tmp_path / "claims.csv")
    (fragile,) = [line for line in found if line["number"] == "22"]
    assert (fragile["verdict"], fragile["naive_verdict"], fragile["paper_verdict"]) == ("holds", "not tested", "holds")


@pytest.mark.usefixtures("undrawn")
def test_every_link_leads_to_a_file_and_none_is_left_over(tmp_path):
    text = write(shifted(BEST_MODELS, 0), tmp_path)
    linked = set(re.findall(r"\]\(([^)#]+)\)", text))
    assert {path.name for path in tmp_path.iterdir()} == linked | {"report.md"}


def test_the_figures_show_the_scores(tmp_path, monkeypatch):
    panels, rows = [], []
    monkeypatch.setattr(pictures, "plot_panels", lambda found, path, columns: panels.append((path.name, found)))
    monkeypatch.setattr(pictures, "plot_digits", lambda images, found, path: rows.append((images, found)))
    scores = shifted(BEST_MODELS, 0)
    for model in best_of_families(MODELS):
        scores.values[model, "r2", model] = np.full((1, 5), 95.0)
        scores.values.setdefault((model, "r1", model), np.full((1, 5), 30.0))
    digits = {model: examples(10, 64) for model in FIGURE_3 if model != DGL1}
    write_report(with_naive(scores, 1), tmp_path, FACTS, digits=digits)
    drawn = dict(panels)
    assert set(drawn) == {f"figure{number}.{ending}" for number in (1, 2) for ending in ("png", "svg")}
    r1, naive, r2 = drawn["figure1.png"].values()
    assert list(r1) == list(naive) == list(r2) == list(best_of_families(MODELS))
    assert r1[RECT] == pytest.approx(paper_accuracy(1, RECT))
    assert r1[Model("L1", 0.01)].tolist() == [30] * 5  # in no table an adversary
    assert naive[RECT] == pytest.approx(r1[RECT] + 1)
    assert r2[RECT].tolist() == [95] * 5
    by_rect, by_mt, *naive = drawn["figure2.svg"].values()
    assert naive[1][MT] == pytest.approx(by_mt[MT] + 1)
    assert list(by_mt) == list(best_of_families(MODELS))
    assert by_mt[MT] == pytest.approx(paper_accuracy(6, MT))
    assert by_rect[DGL1] == pytest.approx(paper_accuracy(1, DGL1))
    (images, shown), _ = rows
    assert images is digits
    assert {model.label: accuracy[3] for model, accuracy in shown.items()} == pytest.approx(
        {"Rect": 49.06, "L1 λ = 0.001": 71.69}
    )


def test_a_real_report_draws_all_figures_and_comes_out_the_same_twice(tmp_path):
    scores = shifted([RECT, MT], 0)
    scores.values[RECT, "r2", RECT] = np.full((1, 5), 95.0)
    digits = {RECT: examples(3, 16)}
    for folder in ("one", "two"):
        write_report(scores, tmp_path / folder, FACTS, digits)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {f"figure{number}.{ending}" for number in (1, 2, 3) for ending in ("png", "svg")} <= names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# -- what can go wrong


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_a_clear_error_and_leaves_the_old_report(tmp_path, monkeypatch):
    write(shifted([RECT], 0), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(report, "_write_csv", full)
    with pytest.raises(NnliteError, match=r"cannot write to .* \(No space left on device\); free some space"):
        write(shifted([MT], 0), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NnliteError, match="cannot write to"):
        write(shifted([RECT], 0), tmp_path / "file" / "report")
