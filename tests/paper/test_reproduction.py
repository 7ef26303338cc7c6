"""The reproduction: what is trained and attacked, that it continues where it was stopped, and what is refused."""

import json
import os
import re
import shutil
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnlite import __version__
from nnlite.attacks import R1, R2, Noise
from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.evaluation.float32_trap import naive_softmax_cross_entropy
from nnlite.grid.jobs import pending, train_jobs
from nnlite.grid.pool import run_in_pool
from nnlite.paper import pictures, reproduction
from nnlite.paper.facts import facts
from nnlite.paper.outcomes import OUTCOMES, read_outcomes, write_outcomes
from nnlite.paper.plan import Plan
from nnlite.paper.reproduction import Reproduction, reproduce
from nnlite.paper.scores import Scores, read_scores
from nnlite.paper.tables import BEST_MODELS, MODELS, ROWS, Model
from nnlite.paper.targets import TARGETS
from nnlite.penalties import L1
from nnlite.storage.refusals import RefusedError
from nnlite.storage.sums import write_sums
from nnlite.training.loop import Epoch
from nnlite.training.run_folder import load_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

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


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Draw empty files: figures take longest. Those of `whole`, which comes before, are real."""
    for name in ("plot_panels", "plot_digits"):
        monkeypatch.setattr(pictures, name, lambda *what, **how: what[-1].touch())


def test_everything_is_made(whole):
    folder, _ = whole
    made = {path.name for path in folder.iterdir()}
    assert OUTCOMES in made
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
    rect, l1 = (load_run(found.path).net for found in runs.values())
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
    assert "2 attacks are left" in [what[2] for what in told]  # by the exact and by the naive error


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


def test_a_plan_says_its_format_and_a_newer_one_is_refused_with_the_version_that_reads_it(tmp_path):
    Reproduction(tmp_path, PLAN).reserve_folder()
    content = json.loads((tmp_path / "plan.json").read_text("utf-8"))
    assert content.items() == {"format": 1, "nnlite": __version__, **PLAN.as_json()}.items()
    newer = json.dumps(content | {"format": 2, "nnlite": "9.1.0", "batch_size": 50})
    (tmp_path / "plan.json").write_text(newer, "utf-8")
    with pytest.raises(RefusedError, match=r"plan\.json: format: expected 1 .*, found 2; nnlite '9\.1\.0' wrote it"):
        Reproduction(tmp_path, PLAN).reserve_folder()
    assert (tmp_path / "plan.json").read_text("utf-8") == newer


def test_nothing_is_written_through_a_link_in_its_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/runs").symlink_to("../elsewhere")
    with pytest.raises(NnliteError, match=r"plan/runs is a link, and may lead anywhere; choose another --folder"):
        run(tmp_path / "plan", ["table1"])
    assert not [*(tmp_path / "elsewhere").iterdir()]
    assert [path.name for path in (tmp_path / "plan").iterdir()] == ["runs"]


def test_the_naive_logit_error_is_attacked_with_as_well(whole):
    folder, _ = whole
    found = read_outcomes(folder, 500)
    (best,) = Reproduction(folder, PLAN).best(Model("Rect"))
    rect = load_run(best.path)
    noise = Noise(L1, loss=naive_softmax_cross_entropy)
    expected = evaluate_attack(rect.net, {"self": rect.net}, load("digits").test, noise).correct["self"]
    assert (found[Model("Rect"), "r1-naive", Model("Rect")] == expected[None]).all()
    assert {key[1] for key in found} == {"r1", "r1-naive", "r2"}
    assert len(found) == 2 * len([key for key in found if key[1] == "r1"]) + 8


def test_scores_of_0_1_0_are_kept_and_what_they_lack_is_attacked(whole, tmp_path):
    """It kept no outcomes, and crafted no naive noise but for Rect."""
    copy = tmp_path / "older"
    shutil.copytree(whole[0], copy)
    (copy / OUTCOMES).unlink()
    old = {key: accuracy for key, accuracy in read_scores(copy).items() if key[1] != "r1-naive"}
    lines = ["adversary,noise,victim,seed,phi,accuracy", *(",".join(map(str, one)) for one in Scores(500, old).lines())]
    (copy / "scores.csv").write_text("\n".join(lines), "utf-8")
    report, told = run(copy, ["table1"])
    assert "1 attacks are left" in [what[2] for what in told]
    assert {key[1] for key in read_outcomes(copy, 500)} == {"r1-naive"}
    after = read_scores(copy)
    assert all((after[key] == accuracy).all() for key, accuracy in old.items())
    assert "where the outcomes of the images were not kept, as by nnlite 0.1.0" in report.read_text("utf-8")


def test_attacks_that_were_finished_before_a_stop_are_not_carried_out_again(whole, tmp_path, monkeypatch):
    copy = tmp_path / "stopped"
    shutil.copytree(whole[0], copy)
    for name in (OUTCOMES, "scores.csv", "report.md"):
        (copy / name).unlink()
    written = []

    def stop(*arguments):
        write_outcomes(*arguments)
        written.append(arguments)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(reproduction, "write_outcomes", stop)
    with pytest.raises(KeyboardInterrupt):
        run(copy, ["fig3"])
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _, told = run(copy, ["fig3"])
    assert "4 attacks are left" in [what[2] for what in told]
    whole_scores = read_outcomes(whole[0], 500)
    assert all((whole_scores[key] == found).all() for key, found in read_outcomes(copy, 500).items())


def test_outcomes_of_other_data_are_refused_by_name(whole, tmp_path):
    copy = tmp_path / "other"
    shutil.copytree(whole[0], copy)
    write_outcomes(copy, 400, {(Model("Rect"), "r1", Model("Rect")): np.ones((1, 5, 400), bool)})
    with pytest.raises(NnliteError, match=r"outcomes\.safetensors: .*it is of 400 images, not 500.*move it away"):
        run(copy, ["table1"])


def test_figure_1_alone_reports_only_the_claims_that_it_can_test(whole, tmp_path):
    copy = tmp_path / "alone"
    shutil.copytree(whole[0] / "runs", copy / "runs")
    report, _ = run(copy, ["fig1"])
    numbers = re.findall(r"^\| (\d+) \|", report.read_text("utf-8"), re.MULTILINE)
    assert numbers == [str(k) for k in (15, 17, 20, 22, 24, *range(30, 38))]


def test_a_folder_of_other_settings_is_refused_and_left_alone(whole):
    folder, _ = whole
    report = (folder / "report.md").read_bytes()
    with pytest.raises(NnliteError, match=r"other settings \(epochs 2\).*--folder"):
        run(folder, ["table1"], plan=Plan(data="digits", epochs=3, mt_epochs=1, hidden=(8,)))
    assert (folder / "report.md").read_bytes() == report


@pytest.mark.parametrize("own", [(("Rect", 3),), (("Rect", 2), ("L1", 9))])
def test_a_folder_of_other_epochs_by_family_is_refused(tmp_path, own):
    Reproduction(tmp_path, replace(PLAN, family_epochs=(("Rect", 2),))).reserve_folder()
    Reproduction(tmp_path, replace(PLAN, family_epochs=(("Rect", 2),))).reserve_folder()
    with pytest.raises(NnliteError, match=r"other settings \(family_epochs \[\['Rect', 2\]\]\).*--folder"):
        Reproduction(tmp_path, replace(PLAN, family_epochs=own)).reserve_folder()


def test_a_plan_without_epochs_by_family_is_that_of_0_1_0(tmp_path):
    plan = {name: value for name, value in PLAN.as_json().items() if name != "family_epochs"}
    (tmp_path / "plan.json").write_text(json.dumps(plan), "utf-8")
    Reproduction(tmp_path, PLAN).reserve_folder()
    with pytest.raises(NnliteError, match="family_epochs"):
        Reproduction(tmp_path, replace(PLAN, family_epochs=(("Rect", 2),))).reserve_folder()


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


def test_families_may_have_epochs_of_their_own():
    plan = Plan(epochs=30, mt_epochs=8, family_epochs=(("Rect", 200), ("MT-DGL1", 15)))
    epochs = {model.family: plan.settings(model, 0, 0.1, 0.5 if model.multitask else None).epochs for model in MODELS}
    assert epochs == {"Rect": 200, "L1": 30, "L2": 30, "DGL1": 30, "DGL2": 30, "MT": 8, "MT-DGL1": 15, "MT-DGL2": 8}
    assert facts(plan, "a command", {})["epochs"].endswith("in one epoch); Rect 200; MT-DGL1 15")


@pytest.mark.parametrize(("own", "words"), [(("DGL3", 2), "did you mean"), (("Rect", 0), "family_epochs")])
def test_epochs_of_no_family_or_none_are_refused(own, words):
    with pytest.raises(NnliteError, match=words):
        Plan(family_epochs=(own,))


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


def test_all_nets_are_trained_where_they_are_wanted():
    jobs = Reproduction(Path("x"), PLAN).jobs(MODELS)
    assert len({job.path for job in jobs}) == 46
    assert len({job.path for job in Reproduction(Path("x"), PLAN).jobs(ROWS)}) == 52
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
        (["table1", "--family-epochs", "Rect=many"], "Rect=200,L1=200"),
        (["table1", "--family-epochs", "Wrect=3"], "did you mean 'Rect'"),
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
def test_a_net_no_better_than_a_guess_is_named_in_the_report(tmp_path, monkeypatch, status, told):
    history = [Epoch(1, 9.0, 10.0, 1.0)]
    monkeypatch.setattr("nnlite.paper.facts.load_run", lambda path: SimpleNamespace(history=history))
    (tmp_path / "settings.json").write_text('{"versions": {"nnlite": "0.1.0"}}', "utf-8")
    run = SimpleNamespace(
        path=tmp_path,
        name="rect-lr9",
        settings=Settings(),
        results=SimpleNamespace(status=status),
    )
    found = facts(Plan(), "a command", {Model("Rect"): [run]})
    assert found.get("failed") == told
    assert found["nets trained by"] == "nnlite 0.1.0: 1"
    (tmp_path / "settings.json").write_text("{}", "utf-8")
    assert facts(Plan(), "a command", {Model("Rect"): [run]})["nets trained by"] == "nnlite unknown: 1"
