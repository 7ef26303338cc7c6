"""The reproduction: what is trained and attacked, that it continues where it was stopped, and what is refused."""

import json
import os
import shutil
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnlite.attacks import R1, R2
from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy, evaluate_attack
from nnlite.grid.jobs import pending, train_jobs
from nnlite.grid.pool import run_in_pool
from nnlite.paper import reproduction
from nnlite.paper.reproduction import Plan, Reproduction, naive_attack, reproduce
from nnlite.paper.tables import BEST_MODELS, MODELS, Model
from nnlite.paper.targets import TARGETS
from nnlite.storage.sums import write_sums
from nnlite.training.loop import Epoch
from nnlite.training.run_folder import load_run
from nnlite.training.settings import Settings

PLAN = Plan(data="digits", epochs=2, mt_epochs=1, hidden=(8,))
OPTIONS = ["--data", "digits", "--epochs", "2", "--mt-epochs", "1", "--hidden", "8", "--jobs", "2"]


def run(folder, targets, models=BEST_MODELS, plan=PLAN, processes=2):
    """Reproduce, and return the report's path, and what was told."""
    told, options = [], {"processes": processes, "command": "a command"}
    report = reproduce(folder, plan, targets, models, **options, on_progress=lambda *what: told.append(what))
    return report, told


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a small reproduction of everything, and what was told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("whole") / "digits"
        return folder, run(folder, TARGETS)[1]


def test_everything_is_made(whole):
    folder, _ = whole
    made = {path.name for path in folder.iterdir()}
    assert {"plan.json", "runs", "report.md", "scores.csv", "claims.csv"} <= made
    assert {f"table{number}.csv" for number in range(1, 9)} <= made
    assert {f"figure{number}.{suffix}" for number in (1, 2, 3) for suffix in ("png", "svg")} <= made
    assert "a command" in (folder / "report.md").read_text("utf-8")


def test_each_net_is_trained_once_with_the_paper_s_settings(whole):
    folder, told = whole
    runs = sorted((folder / "runs" / "digits").iterdir())
    assert len(runs) == len(BEST_MODELS)
    settings = {path.name: load_run(path).settings for path in runs}
    one = settings["mt-dgl1-lam0.1-phi0.1-lr0.1-gamma0.5-seed0"]
    assert (one.reg, one.lam, one.phi, one.multitask, one.gamma, one.epochs) == ("dgl1", 0.1, 0.1, True, 0.5, 1)
    assert settings["rect-lr0.1-seed0"].epochs == 2
    done, total, _ = told[-1]
    assert done == pytest.approx(total)
    assert [what[0] for what in told] == sorted(what[0] for what in told)


def test_the_scores_are_those_of_the_attacks(whole):
    folder, _ = whole
    rows = [line.split(",") for line in (folder / "scores.csv").read_text("utf-8").splitlines()]
    runs = {model: Reproduction(folder, PLAN).best(model)[0] for model in (Model("Rect"), Model("L1", 0.001))}
    test = load("digits").test
    rect, l1 = (found.net for found in runs.values())
    expected = evaluate_attack(rect, {"l1": l1}, test, R1).accuracy["l1"]
    found = [float(row[-1]) for row in rows if row[:3] == ["rect", "r1", "l1-lam0.001"]]
    assert found == pytest.approx(expected.tolist())
    expected = evaluate_attack(rect, {"rect": rect}, test, R2).accuracy["rect"]
    assert [float(row[-1]) for row in rows if row[:3] == ["rect", "r2", "rect"]] == pytest.approx(expected.tolist())


def test_a_second_call_trains_and_attacks_nothing_and_reports_all_that_is_there(whole):
    folder, _ = whole
    scores, report = ((folder / name).read_text("utf-8") for name in ("scores.csv", "report.md"))
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    _, told = run(folder, ["table1"])
    assert [what[2] for what in told if what[2]] == [
        f"0 of {len(BEST_MODELS)} nets are left to train",
        "0 attacks are left",
    ]
    assert sorted((folder / "scores.csv").read_text("utf-8").split()) == sorted(scores.split())
    assert (folder / "report.md").read_text("utf-8") == report
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}


def test_a_net_that_was_trained_again_is_attacked_again(whole, tmp_path):
    folder, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (weights,) = (copy / "runs/digits/l1-lam0.001-lr0.1-seed0").glob("weights*")
    os.utime(weights)
    _, told = run(copy, ["table1", "fig1"])
    # as victim of Rect; in figure 1 the best row of L1 is another one
    assert "1 attacks are left" in [what[2] for what in told]


@pytest.mark.parametrize("content", ["adversary,noise\nrect,r1\n", '"' + "1" * 200_000, "\n" * (1 << 23) + "x"])
def test_damaged_scores_are_an_error(whole, tmp_path, content):
    folder, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "scores.csv").write_text(content)
    with pytest.raises(NnliteError, match=r"scores\.csv: damaged.*move it away to attack again"):
        run(copy, ["table1"])


@pytest.mark.parametrize("content", ["", "[]", '{"epochs": 2, "epochs": 3}', '{"epochs": NaN}', "[" * 9000])
def test_a_damaged_plan_is_an_error(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(NnliteError, match=r"plan\.json: cannot be written or read .*--folder"):
        Reproduction(tmp_path, PLAN).reserve_folder()


def test_the_naive_logit_error_is_attacked_with(whole):
    folder, _ = whole
    (rect,) = Reproduction(folder, PLAN).best(Model("Rect"))
    naive = naive_attack(rect)
    assert naive.shape == (5,)
    assert naive[0] == accuracy(rect.net, load("digits").test)


def test_a_folder_of_other_settings_is_refused_and_left_alone(whole):
    folder, _ = whole
    report = (folder / "report.md").read_bytes()
    with pytest.raises(NnliteError, match=r"other settings \(epochs 2\).*--folder"):
        run(folder, ["table1"], plan=Plan(data="digits", epochs=3, mt_epochs=1, hidden=(8,)))
    assert (folder / "report.md").read_bytes() == report


def test_a_search_takes_the_best_on_the_validation_set(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = Plan(data="digits", epochs=3, mt_epochs=1, hidden=(16,), lr=(0.001, 0.2), gamma=(0.25, 0.5), seeds=(0, 1))
    report, _ = run(tmp_path / "search", ["fig2"], models=[Model("Rect")], plan=plan)
    chosen = Reproduction(tmp_path / "search", plan)
    assert len(list((tmp_path / "search/runs/digits").iterdir())) == 2 * 2 + 2 * 2 * 2
    assert [found.settings.lr for found in chosen.best(Model("Rect"))] == [0.2, 0.2]

    def validation(gamma):
        runs = [load_run(chosen.job(Model("MT"), seed, 0.2, gamma).path) for seed in plan.seeds]
        return np.mean([run.results.validation for run in runs])

    assert chosen.best(Model("MT"))[0].settings.gamma == max(plan.gamma, key=validation)
    assert "chosen" in report.read_text("utf-8")


def test_multi_task_nets_may_have_learning_rates_of_their_own():
    plan = Plan(lr=(0.1, 0.2), mt_lr=(0.05,), gamma=(0.25, 0.5))
    assert plan.candidates(Model("Rect")) == [(0.1, None), (0.2, None)]
    assert plan.candidates(Model("MT")) == [(0.05, 0.25), (0.05, 0.5)]
    assert Plan(lr=(0.1,)).candidates(Model("MT")) == [(0.1, 0.5)]


def test_a_net_that_diverges_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = Plan(data="digits", epochs=1, mt_epochs=1, hidden=(16, 16, 16), lr=(1e8,))
    with pytest.raises(NnliteError, match="every net diverged"):
        run(tmp_path / "wild", ["fig3"], plan=plan)


def test_an_interrupted_run_is_trained_again(tmp_path):
    made = Reproduction(tmp_path, PLAN)
    (job,) = made.jobs([Model("Rect")])
    list(train_jobs([[job]], partial(run_in_pool, processes=1), lambda cost: None))
    assert pending([job]) == []
    results = json.loads((job.path / "results.json").read_text())
    (job.path / "results.json").write_text(json.dumps({**results, "status": "interrupted"}))
    write_sums(job.path)
    assert pending([job]) == [job]


def test_a_run_of_other_settings_in_its_place_is_refused(tmp_path):
    made = Reproduction(tmp_path, PLAN)
    (job,) = made.jobs([Model("Rect")])
    list(train_jobs([[job]], partial(run_in_pool, processes=1), lambda cost: None))
    settings = json.loads((job.path / "settings.json").read_text())
    settings["settings"]["lr"] = 0.2
    (job.path / "settings.json").write_text(json.dumps(settings))
    write_sums(job.path)
    with pytest.raises(NnliteError, match="other settings"):
        pending([job])


def test_of_two_plans_that_claim_a_folder_at_once_one_has_it(tmp_path):
    plans = [replace(PLAN, epochs=epochs) for epochs in (1, 2)] * 4
    for turn in range(20):
        outcomes, start = [], threading.Barrier(len(plans))

        def claim(plan, folder=tmp_path / str(turn), outcomes=outcomes, start=start):
            start.wait()
            try:
                Reproduction(folder, plan).reserve_folder()
                outcomes.append(plan.epochs)
            except NnliteError as error:
                outcomes.append(str(error))

        threads = [threading.Thread(target=claim, args=[plan]) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        claimed = [one for one in outcomes if isinstance(one, int)]
        assert len(claimed) == 4
        assert len(set(claimed)) == 1
        assert all("other settings" in one for one in outcomes if one not in claimed)
        assert [path.name for path in (tmp_path / str(turn)).iterdir()] == ["plan.json"]


def test_all_46_nets_are_trained_where_they_are_wanted():
    jobs = Reproduction(Path("x"), PLAN).jobs(MODELS)
    assert len({job.path for job in jobs}) == 46
    assert max(job.cost for job in jobs) == 2 * 5 * 1


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path, nnlite, ctrl_c):
    folder = tmp_path / "stopped"
    arguments = ["reproduce", "fig3", *OPTIONS[:2], "--epochs", "40", *OPTIONS[4:], "--folder", str(folder)]
    ctrl_c(*arguments)
    finished = list((folder / "runs" / "digits").glob("[!.]*"))
    assert finished
    assert {load_run(path).results.status for path in finished} == {"finished"}
    before = {path: path.stat().st_mtime_ns for path in finished}
    result = nnlite(*arguments)
    assert result.exit_code == 0, result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in finished}
    assert result.stdout.strip() == str(folder / "report.md")
    full = "nnlite reproduce fig3 --models best --data digits --epochs 40 --mt-epochs 1 --seeds 0 --lr 0.1 --gamma 0.5"
    assert full in (folder / "report.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table9"], "table9"),
        ([], "TARGET"),
        (["table1", "--models", "some"], "some"),
        (["table1", "--seeds", "one"], "one"),
        (["table1", "--seeds", ""], "seeds"),
        (["table1", "--lr", "0"], "lr"),
        (["table1", "--epochs", "0"], "epochs"),
        (["table1", "--data", "iris"], "iris"),
        (["table1", "--device", "gpu"], "CuPy"),
    ],
)
def test_bad_input_exits_2_before_anything_is_trained(nnlite, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = nnlite("reproduce", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.rglob("weights.safetensors"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, nnlite):
    (tmp_path / "file").write_text("")
    result = nnlite("reproduce", "table1", *OPTIONS, "--folder", tmp_path / "file" / "x")
    assert result.exit_code == 2
    assert "--folder" in result.stderr


def test_a_full_disk_is_an_error_and_the_finished_runs_are_intact(whole, monkeypatch):
    folder, _ = whole

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()}
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(NnliteError, match="No space left"):
        run(folder, ["table1"])
    assert before == {path: path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("status", "told"), [("failed", "rect-lr9; no better than a guess"), ("finished", None)])
def test_a_net_no_better_than_a_guess_is_named_in_the_report(status, told):
    run = SimpleNamespace(
        name="rect-lr9",
        history=[Epoch(1, 9.0, 10.0, 1.0)],
        settings=Settings(),
        results=SimpleNamespace(status=status),
    )
    assert reproduction._facts(Plan(), "a command", {Model("Rect"): [run]}).get("failed") == told
