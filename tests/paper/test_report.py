"""The report on scores whose answer is known: the paper's own, and a few made by hand."""

import csv
import dataclasses
import errno
import os
import re

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.paper import pictures, report
from nnlite.paper.report import rank_correlation, table_rows, write_report
from nnlite.paper.scores import Scores, paper_scores
from nnlite.paper.tables import ADVERSARIES, BEST_MODELS, FIGURE_3, MODELS, PHI, Model, best_of_families, paper_accuracy

RECT, MT, DGL1 = Model("Rect"), Model("MT"), Model("DGL1", 0.01, 0.1)
FACTS = {"command": "`nnlite reproduce all`", "hours": "1.5"}
NAIVE = np.array([97.99, 96.8, 95.0, 60.0, 30.0])


def shifted(models, by):
    """The paper's scores of some models, two seeds, one point apart, their mean `by` points off."""
    values = {
        key: np.clip(np.concatenate([accuracy + by - 0.5, accuracy + by + 0.5]), 0, 100)
        for key, accuracy in paper_scores().values.items()
        if key[2] in models
    }
    return Scores(10_000, values)


@pytest.fixture
def undrawn(monkeypatch):
    """Write an empty file in place of each figure; the real ones take a second."""
    monkeypatch.setattr(pictures, "plot_panels", lambda panels, path: path.write_bytes(b""))
    monkeypatch.setattr(pictures, "plot_digits", lambda digits, accuracies, path: path.write_bytes(b""))


def write(scores, folder, **more):
    return write_report(scores, folder, FACTS, **more).read_text("utf-8")


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- the rows


@pytest.mark.parametrize("number", ADVERSARIES)
def test_the_papers_scores_against_themselves_differ_by_nothing(number):
    rows = table_rows(paper_scores(), number)
    assert [row.model for row in rows] == list(MODELS)
    assert all(not row.difference.any() for row in rows)
    assert rank_correlation(rows) == pytest.approx((1, 1, 46))


def test_a_row_is_the_mean_over_seeds():
    values = {(RECT, "r1", MT): np.array([[90.0, 80, 70, 60, 50], [92, 84, 76, 68, 60]])}
    (row,) = table_rows(Scores(100, values), 1)
    assert (row.model, row.seeds) == (MT, 2)
    assert row.ours.tolist() == [91, 82, 73, 64, 55]
    assert row.difference == pytest.approx(np.array([91, 82, 73, 64, 55]) - paper_accuracy(1, MT))


def test_the_rank_correlation_is_one_less_six_times_the_squares():
    """Ranks without ties: rho = 1 - 6 sum d^2 / (n (n^2 - 1))."""
    chosen = [RECT, MT, Model("L1", 0.01), Model("L2", 0.01), DGL1]  # 10.83, 17.20, 74.35, 42.00, 94.27
    mixed = [20, 10, 70, 60, 90]  # Rect and MT change places
    values = {
        (RECT, "r1", model): np.array([[98, 97, 96, 50, last]], float)
        for model, last in zip(chosen, mixed, strict=True)
    }
    found = rank_correlation(table_rows(Scores(100, values), 1))
    assert found.at_largest_phi == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert found.rows == 5


def test_the_mean_over_noise_leaves_clean_images_out():
    """Clean accuracy orders these rows one way and all noise the other; the paper's order is that of the noise."""
    chosen = [RECT, MT, Model("L2", 0.01), Model("L1", 0.01)]
    values = {
        (RECT, "r1", model): np.array([[90 - 20 * k, 10 + k, 10 + k, 10 + k, 13 - k]], float)
        for k, model in enumerate(chosen)
    }
    found = rank_correlation(table_rows(Scores(100, values), 1))
    assert (found.at_largest_phi, found.mean_over_noise) == pytest.approx((-1, 1))


@pytest.mark.usefixtures("undrawn")
def test_how_far_off_is_told_apart_for_clean_images_and_the_largest_noise(tmp_path):
    off = np.array([0.25, -5, -5, -5, -7.5])
    values = {(RECT, "r1", model): np.array([paper_accuracy(1, model)]) + off for model in (DGL1, Model("L1", 0.01))}
    assert "| Rect | 2 | - | - | 0.25 | 7.50 |" in write(Scores(10_000, values), tmp_path)


def test_two_rows_or_equal_rows_have_no_rank_correlation():
    equal = {(RECT, "r1", model): np.full((1, 5), 50.0) for model in MODELS[:5]}
    assert np.isnan(rank_correlation(table_rows(Scores(100, equal), 1))[:2]).all()
    assert np.isnan(rank_correlation(table_rows(shifted([RECT, MT], 0), 1)).at_largest_phi)
    assert np.isnan(rank_correlation([]).at_largest_phi)


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
    assert text.count("rank correlation 1.00 at φ = 0.1, 1.00") == 8
    # where the numbers are the paper's, so are the verdicts
    rows = re.findall(r"\| \*\*(.+?)\*\* \| ([\w ]+) \|\n", text)
    assert len(rows) == 13
    assert all(ours == paper for ours, paper in rows)
    assert "There is one seed, so the spread between seeds is **not** in the interval" in text
    for words in ("Figure 1", "Figure 3"):
        section = text.split(f"## {words}\n")[1].split("\n## ")[0]
        assert "Not drawn" in section
    assert "![Figure 2](figure2.png)" in text
    assert "Not made: it needs Rect's attack on itself" in text


@pytest.mark.usefixtures("undrawn")
def test_a_cell_holds_ours_the_papers_and_the_difference(tmp_path):
    text = write(shifted(BEST_MODELS, -1.25), tmp_path)
    assert "| Rect | 96.74 (97.99, -1.25) | 95.55 (96.80, -1.25) |" in text
    assert "16 of the paper's 46 rows" in text
    assert "the spread between seeds is **not**" not in text
    line = next(line for line in text.splitlines() if line.startswith("| [Table 1](#table-1) | Rect | 16 |"))
    assert line == "| [Table 1](#table-1) | Rect | 16 | 1.00 | 1.00 | 1.25 | 1.25 |"
    assert (
        "- ours: MT-DGL1 96.25, DGL1 93.02, MT-DGL2 83.17, L1 73.10, L2 68.62, DGL2 18.59, MT 15.95, Rect 9.58" in text
    )


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
    assert "rank correlation - at φ = 0.1" in text
    assert "The families under Rect's attack" not in text


@pytest.mark.usefixtures("undrawn")
def test_other_data_are_not_compared_figure_by_figure(tmp_path):
    assert "These are other data" not in write(shifted([RECT], 0), tmp_path, naive=NAIVE)
    other = dataclasses.replace(shifted([RECT], 0), images=500)
    text = write(other, tmp_path, naive=NAIVE)
    assert "- test images: 500\n\nThe paper's figures are for MNIST" in text
    assert "These are other data" in text
    assert "nearer to" not in text


@pytest.mark.usefixtures("undrawn")
def test_seeds_of_one_model_only_are_said(tmp_path):
    values = {(RECT, "r1", RECT): np.full((2, 5), 50.0), (RECT, "r1", MT): np.full((1, 5), 40.0)}
    assert "Where a model has one seed" in write(Scores(100, values), tmp_path)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("naive", "words"),
    [
        ([97.99, 96.8, 95.0, 49.0, 60.83], "50.00 points of robustness that is not there. The paper's 10.83 %"),
        ([97.99, 96.8, 95.0, 49.0, 11.0], "agree within half a point at every φ"),
        ([97.99, 96.8, 95.0, 29.06, 11.0], "20.00 points less than with ours"),
    ],
)
def test_the_float32_trap_is_put_into_words(tmp_path, naive, words):
    text = write(shifted([RECT], 0), tmp_path, naive=np.array(naive))
    assert words in text
    assert "| the paper's Rect | 97.99 | 96.80 | 95.01 | 49.06 | 10.83 |" in text
    assert f"| float32, p - 1 | 97.99 | 96.80 | 95.00 | {naive[3]:.2f} |" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("ours", "nearer"), [(0.5, "the naive error"), (10.0, "ours")])
def test_the_papers_figure_is_nearer_to_one_of_them(tmp_path, ours, nearer):
    values = {(RECT, "r1", RECT): np.array([[98, 97, 95, 20, ours]])}
    text = write(Scores(10_000, values), tmp_path, naive=np.array([98, 97, 95, 20, 13.0]))
    assert f"The paper's 10.83 % there is nearer to {nearer}." in text


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
    assert len(found) == 13
    assert found[9]["verdict"] == "not tested"
    assert found[9]["paper_verdict"] == "holds"


@pytest.mark.usefixtures("undrawn")
def test_every_link_leads_to_a_file_and_none_is_left_over(tmp_path):
    text = write(shifted(BEST_MODELS, 0), tmp_path)
    linked = set(re.findall(r"\]\(([^)#]+)\)", text))
    assert {path.name for path in tmp_path.iterdir()} == linked | {"report.md"}


def test_the_figures_show_the_scores(tmp_path, monkeypatch):
    panels, rows = [], []
    monkeypatch.setattr(pictures, "plot_panels", lambda found, path: panels.append((path.name, found)))
    monkeypatch.setattr(pictures, "plot_digits", lambda images, found, path: rows.append((images, found)))
    scores = shifted(BEST_MODELS, 0)
    for model in best_of_families(MODELS):
        scores.values[model, "r2", model] = np.full((1, 5), 95.0)
        scores.values.setdefault((model, "r1", model), np.full((1, 5), 30.0))
    digits = {model: np.zeros((10, 5, 64)) for model in FIGURE_3 if model != DGL1}
    write_report(scores, tmp_path, FACTS, digits=digits)
    drawn = dict(panels)
    assert set(drawn) == {f"figure{number}.{ending}" for number in (1, 2) for ending in ("png", "svg")}
    r1, r2 = drawn["figure1.png"].values()
    assert list(r1) == list(r2) == list(best_of_families(MODELS))
    assert r1[RECT] == pytest.approx(paper_accuracy(1, RECT))
    assert r1[Model("L1", 0.01)].tolist() == [30] * 5  # in no table an adversary
    assert r2[RECT].tolist() == [95] * 5
    by_rect, by_mt = drawn["figure2.svg"].values()
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
    digits = {RECT: np.random.default_rng(0).random((3, 5, 16))}
    for folder in ("one", "two"):
        write_report(scores, tmp_path / folder, FACTS, NAIVE, digits)
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
