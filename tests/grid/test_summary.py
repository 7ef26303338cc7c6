"""The summary of a grid: figures over seeds by hand, and a choice that no test image has a part in."""

import csv
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnlite.attacks import PGD as PGD_ATTACK
from nnlite.datasets.catalog import load
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.grid.combinations import make_grid
from nnlite.grid.jobs import Job
from nnlite.grid.summary import (
    NOISY,
    PGD,
    TEST,
    VALIDATION,
    best_of,
    group_by_seed,
    heat_maps,
    pgd_accuracies,
    pgd_accuracy,
    write_csv,
)
from nnlite.storage.sums import write_sums
from nnlite.training.run_folder import RESULTS, load_run
from nnlite.training.runs import make_run

TABLE = {"hidden": [8], "epochs": 2, "reg": "dgl1", "lam": [0.001, 0.01], "phi": [0.05, 0.1], "seed": [0, 1, 2]}


def change_results(path, **figures):
    content = json.loads((path / RESULTS).read_text("utf-8"))
    (path / RESULTS).write_text(json.dumps({**content, **figures}), "utf-8")
    write_sums(path)


@pytest.fixture
def jobs(digits, tmp_path):
    """A grid whose runs have figures made by hand: validation 10 x lambda's place + phi's place + seed / 10."""
    found = make_grid([TABLE], tmp_path / "runs", "a test")
    source = make_run(found[0].settings, digits, tmp_path / "source")
    for job in found:
        place = 10 * [0.001, 0.01].index(job.settings.lam) + [0.05, 0.1].index(job.settings.phi)
        job.path.mkdir(parents=True)
        for file in source.path.iterdir():
            (job.path / file.name).write_bytes(file.read_bytes())
        settings = {"settings": asdict(job.settings), "versions": {}}
        (job.path / "settings.json").write_text(json.dumps(settings), "utf-8")
        test = 90.0 - place  # the other way round than validation
        change_results(job.path, validation=50.0 + place + job.settings.seed / 10, test=test, self_attack=[test] * 5)
    return found


def test_nets_that_differ_in_their_seed_are_a_group(jobs):
    groups = group_by_seed(jobs)
    assert [(group.name, len(group.jobs)) for group in groups] == [
        (f"dgl1-lam{lam}-phi{phi}-hidden8-epochs2", 3) for lam in (0.001, 0.01) for phi in (0.05, 0.1)
    ]
    assert groups[1].mean(VALIDATION) == pytest.approx(statistics.mean([51.0, 51.1, 51.2]))
    assert groups[1].spread(VALIDATION) == pytest.approx(statistics.stdev([51.0, 51.1, 51.2]))
    assert (groups[1].mean(TEST), groups[1].spread(TEST), groups[1].mean(NOISY)) == (89.0, 0.0, 89.0)
    assert {group.status for group in groups} == {"finished"}


def test_a_seed_is_taken_out_of_a_name_and_nothing_else(tmp_path):
    table = {"seed": [1, 10], "decay": 0.5, "lr": [0.1, 0.2]}
    names = [group.name for group in group_by_seed(make_grid([table], tmp_path, "a test"))]
    assert names == ["rect-decay0.5", "rect-lr0.2-decay0.5"]


def test_the_best_is_chosen_by_validation_and_not_by_test(jobs):
    groups = group_by_seed(jobs)
    assert best_of(groups, VALIDATION) is groups[3]
    assert max(groups, key=lambda group: group.mean(TEST)) is groups[0]


def test_settings_of_which_a_seed_is_missing_are_not_the_best(jobs):
    for file in jobs[-1].path.iterdir():
        file.unlink()
    jobs[-1].path.rmdir()
    groups = group_by_seed(jobs)
    assert best_of(groups, VALIDATION) is groups[2]
    assert np.isnan(groups[3].mean(VALIDATION))
    assert groups[3].status == "2 of 3 finished"
    assert best_of([groups[3]], VALIDATION) is None
    assert np.isnan(heat_maps(groups, VALIDATION)[0].values[1, 1])


def test_a_map_has_a_field_for_each_lambda_and_phi(jobs):
    (found,) = heat_maps(group_by_seed(jobs), VALIDATION)
    assert (found.name, found.lam, found.phi) == ("dgl1-hidden8-epochs2", (0.001, 0.01), (0.05, 0.1))
    assert found.values == pytest.approx(np.array([[50.1, 51.1], [60.1, 61.1]]))


@pytest.mark.parametrize(
    ("table", "maps"),
    [
        ({"reg": "dgl1", "lam": 0.01, "phi": [0.05, 0.1]}, 0),
        ({"reg": "l2", "lam": [0.01, 0.1]}, 0),
        ({"reg": ["dgl1", "dgl2"], "lam": [0.01, 0.1], "phi": [0.05, 0.1]}, 2),
        ({"reg": "dgl1", "lam": [0.01, 0.1], "phi": [0.05, 0.1], "lr": [0.1, 0.2], "seed": [0, 1]}, 2),
    ],
)
def test_there_is_a_map_where_both_vary(tmp_path, table, maps):
    assert len(heat_maps(group_by_seed(make_grid([table], tmp_path, "a test")), VALIDATION)) == maps


def test_the_csv_has_a_line_for_each_net(jobs, tmp_path):
    write_csv(group_by_seed(jobs, {job.path: 7.0 for job in jobs}), tmp_path / "new" / "grid.csv")
    with (tmp_path / "new" / "grid.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [str(group.path) for one in group_by_seed(jobs) for group in one.jobs]
    for row, job in zip(rows, [job for group in group_by_seed(jobs) for job in group.jobs], strict=True):
        found = load_run(job.path)
        assert (float(row["lam"]), float(row["phi"]), int(row["seed"]), row["hidden"]) == (
            *(job.settings.lam, job.settings.phi, job.settings.seed),
            "8",
        )
        assert float(row["validation"]) == found.results.validation
        assert (float(row["phi 0.1"]), row["status"], float(row["PGD"])) == (
            found.results.self_attack[-1],
            "finished",
            7,
        )


# --- PGD on the validation images


@pytest.fixture
def run(digits, tmp_path):
    (job,) = make_grid([{"hidden": [16], "epochs": 8, "seed": 2}], tmp_path, "a test")
    return make_run(job.settings, digits, tmp_path)


def test_the_accuracy_under_pgd_is_that_on_the_validation_images(run, digits, monkeypatch):
    table = evaluate_attack(run.net, {"net": run.net}, digits.validation, PGD_ATTACK(steps=40, clip=True), (0.03,))
    without_test = SimpleNamespace(validation=digits.validation)  # whatever asks for a test image fails
    monkeypatch.setattr(
        "nnlite.grid.summary.load_data", lambda settings, source: {(2, ""): without_test}[settings.seed, source]
    )
    found = pgd_accuracy(Job(run.path, run.settings), 0.03)
    assert found == table.accuracy["net"][0]
    assert 0 < found < run.results.validation


def test_a_net_without_a_run_has_no_accuracy(run, tmp_path):
    told = []

    def here(tasks, on_progress=None):
        return ((index, task[0](*task[1:])) for index, task in enumerate(tasks))

    jobs = [Job(run.path, run.settings), Job(tmp_path / "digits" / "lost", replace(run.settings, lr=9.0))]
    assert pgd_accuracies(jobs, 0.03, here, lambda *done: told.append(done)).keys() == {run.path}
    assert told == [(0, 1), (1, 1)]
    groups = group_by_seed(jobs, {run.path: 50.0})
    assert best_of(groups, PGD) is groups[0]


def test_the_command_selects_by_pgd_where_the_test_images_would_choose_otherwise(nnlite, digits):
    arguments = ("grid", "--hidden", 32, "--epochs", 20, "--lr", "0.1,0.4", "--jobs", 1, "--json", "--select", "pgd")
    first = json.loads(nnlite(*arguments, "--select-phi", 0.05).stdout)
    pgd = []
    for entry in first:
        net = load_run(Path(entry["path"])).net
        table = evaluate_attack(net, {"net": net}, load("digits").validation, PGD_ATTACK(steps=40, clip=True), (0.05,))
        pgd.append(table.accuracy["net"][0])
    assert [entry["pgd"] for entry in first] == pgd
    assert pgd[0] != pgd[1]
    best = int(np.argmax(pgd))
    for k, entry in enumerate(first):  # by test, under noise and without, the other one is the better
        figures = [10.0 if k == best else 100.0] * 5
        change_results(load_run(Path(entry["path"])).path, test=figures[0], self_attack=figures)
    again = json.loads(nnlite(*arguments, "--select-phi", 0.05).stdout)
    assert [entry["best"] for entry in again] == [k == best for k in range(2)]
    assert [entry["results"]["test"] for entry in again] == [10.0 if k == best else 100.0 for k in range(2)]


# --- what the command prints, writes and draws


def test_the_command_ends_with_means_a_map_and_the_best(nnlite, jobs, tmp_path, figures):
    table = ("--hidden", 8, "--epochs", 2, "--reg", "dgl1", "--lam", "0.001,0.01", "--phi", "0.05,0.1")
    result = nnlite("grid", *table, "--seed", "0,1,2", "--csv", "grid.csv", "--plot", "map.png")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    figures_of_3_seeds = ["61.10", "±", "0.10", "79.00", "±", "0.00", "79.00", "±", "0.00"]
    assert ["digits/dgl1-lam0.01-phi0.1-hidden8-epochs2", "3", *figures_of_3_seeds, "finished"] in lines
    assert ["0.001", "50.10", "51.10"] in lines
    assert ["0.01", "60.10", "61.10*"] in lines
    assert result.stdout.endswith(
        "best validation accuracy: dgl1-lam0.01-phi0.1-hidden8-epochs2, 61.10 ± 0.10 %; "
        "on the test images 79.00 ± 0.00 %\n"
    )
    assert len((tmp_path / "grid.csv").read_text("utf-8").splitlines()) == 13
    (figure,) = figures
    (axes,) = figure.axes
    drawn = {text.get_text() for text in axes.texts}
    assert drawn == {"50.1", "51.1", "60.1", "61.1"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.05", "0.1"]
    assert (axes.patches[0].get_x(), axes.patches[0].get_y()) == (0.5, 0.5)  # the frame of the last field


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plot", "map.png"), "plot: expected a grid with several values of lambda and of phi"),
        (("--plot", "map.gif"), "picture: expected"),
        (("--select", "test"), "--select"),
        (("--select-phi", 0.1), "--select-phi is the size of PGD's noise"),
        (("--select", "pgd", "--select-phi", -1), "phi: expected"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(nnlite, tmp_path, options, words):
    result = nnlite("grid", "--hidden", 8, "--epochs", 1, *options)
    assert (result.exit_code, result.stdout, words in result.stderr) == (2, "", True)
    assert not (tmp_path / "runs").exists()
