"""Files that version 0.1.0 wrote are read by this one; tests/fixtures/0.1.0/README.md says how each was made."""

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from nnlite.errors import NnliteError
from nnlite.grid import read_grid
from nnlite.paper import Plan, Reproduction
from nnlite.paper.scores import read_scores
from nnlite.storage.weights import named_arrays
from nnlite.training.run_folder import load_run

RELEASED = Path(__file__).parent / "fixtures" / "0.1.0"
RUNS = sorted(path.name for path in (RELEASED / "trained" / "digits").glob("[!.]*"))
STOPPED = {  # the command, and the epoch after which it was stopped
    "killed": ("train --hidden 8,8 --epochs 12 --batch-size 20 --reg dgl1 --lam 0.01 --phi 0.1", 9),
    "interrupted": ("train --hidden 8,8 --epochs 6 --batch-size 20 --multitask", 3),
}

every_run = pytest.mark.parametrize("name", RUNS)
each_stopped = pytest.mark.parametrize("name", STOPPED)


@pytest.fixture
def released(tmp_path):
    """A copy of all files, which a test may change."""
    return Path(shutil.copytree(RELEASED, tmp_path / "released"))


def written(path):
    return json.loads(path.read_text("utf-8"))


def rows(path):
    """Return the epochs in a history.csv, each with its loss and its validation accuracy."""
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(map(float, row[:3])) for row in list(csv.reader(file))[1:]]


def one_error(result):
    """Return the error of a command that ended with bad input: one line, the last one, and nothing on stdout."""
    assert (result.exit_code, result.stdout) == (2, "")
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    assert result.stderr.endswith(f"{error}\n")
    return error


def test_there_is_a_run_of_each_kind():
    assert len(RUNS) == 11
    later = {"alpha", "p", "term", "gradient"}
    settings = [written(RELEASED / "trained" / "digits" / name / "settings.json")["settings"] for name in RUNS]
    assert sum(not later & found.keys() for found in settings) == 1  # written before there were these settings
    assert {found["reg"] for found in settings} == {"none", "dgl1", "dgl2", "datagrad", "goodfellow", "lyu"}


@every_run
def test_a_run_is_what_its_files_say(name):
    folder = RELEASED / "trained" / "digits" / name
    run = load_run(folder)
    settings = written(folder / "settings.json")["settings"]
    assert {key: json.loads(json.dumps(getattr(run.settings, key))) for key in settings} == settings
    if name == "earliest":
        read = (run.settings.alpha, run.settings.p, run.settings.term, run.settings.gradient)
        assert read == (None, None, None, "finite")
    assert [epoch[:3] for epoch in run.history] == rows(folder / "history.csv")
    assert [run.results.test, *run.results.self_attack] == [
        written(folder / "results.json")["test"],
        *written(folder / "results.json")["self_attack"],
    ]
    arrays = safetensors.numpy.load_file(folder / "weights.safetensors")
    found = named_arrays(run.net)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[key], array) for key, array in arrays.items())


@every_run
def test_a_run_stands_the_noise_that_it_stood(nnlite, name):
    trained = RELEASED / "trained"
    result = nnlite("attack", "--runs", trained, "--adversary", name, "--victim", name, "--json")
    found = json.loads(result.stdout)["accuracy"][name]
    # Another BLAS may round a gradient of almost 0 to the other sign, and five of 500 images to another class.
    assert found == pytest.approx(written(trained / "digits" / name / "results.json")["self_attack"], abs=1.0)


def test_the_runs_are_listed_and_the_stopped_ones_told(nnlite):
    found = json.loads(nnlite("runs", "--runs", RELEASED / "trained", "--json").stdout)
    assert {run["name"]: run["results"] for run in found} == {
        name: written(RELEASED / "trained" / "digits" / name / "results.json") for name in RUNS
    }
    result = nnlite("runs", "--runs", RELEASED / "trained")
    assert result.exit_code == 0
    for name, said in {"interrupted": "after epoch 3 of 6", "killed": "after epoch 9 of 12"}.items():
        assert f"digits/{name} {said}" in result.stderr


@each_stopped
def test_a_stopped_training_goes_on_to_where_it_would_have_come(nnlite, released, name):
    command, done = STOPPED[name]
    runs = released / "trained"
    result = nnlite(*shlex.split(command), "--runs", runs, "--name", name, "--resume")
    assert (result.exit_code, f"going on after epoch {done}\n" in result.stderr) == (0, True)
    assert not (runs / "digits" / f".{name}.checkpoint").exists()
    run, whole = runs / "digits" / name, runs / "digits" / f"{name}-whole"
    assert written(whole / "settings.json")["settings"].items() <= written(run / "settings.json")["settings"].items()
    assert rows(run / "history.csv")[:done] == rows(whole / "history.csv")[:done]
    # not the same bits: since then the products of a step are added by BLAS
    assert np.array(rows(run / "history.csv")) == pytest.approx(np.array(rows(whole / "history.csv")), rel=1e-3, abs=1)


@each_stopped
def test_a_stopped_training_of_other_settings_is_refused(nnlite, released, name):
    command = [*shlex.split(STOPPED[name][0]), "--runs", released / "trained", "--name", name, "--resume"]
    assert "lr 0.1, not 0.2" in one_error(nnlite(*command, "--lr", "0.2"))


@pytest.mark.parametrize(
    ("file", "victims"),
    [("attack.safetensors", ["dgl1-lam0.01-phi0.1", "mt-gamma0.25", "rect"]), ("attack-float64.safetensors", ["rect"])],
)
def test_an_attack_file_is_verified(nnlite, file, victims):
    named = [word for victim in victims for word in ("--run", victim)]
    result = nnlite("verify", RELEASED / file, "--runs", RELEASED / "trained", *named)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "pass  all is as the file says")


def test_an_attack_file_with_one_pixel_changed_fails(nnlite, released):
    file = released / "attack.safetensors"
    content = bytearray(file.read_bytes())
    content[-73] ^= 0x40  # in the exponent of the last pixel; after it come 9 int64
    file.write_bytes(content)
    result = nnlite("verify", file)
    assert result.exit_code == 1
    assert "FAIL  phi 0.1: pixels outside [0, 1]: 1 of 6 images" in result.stdout


def test_a_grid_means_the_same_trainings(nnlite):
    found = json.loads(nnlite("grid", RELEASED / "grid.toml", "--dry-run", "--json").stdout)
    planned = written(RELEASED / "grid.json")
    for training, other in zip(found, planned, strict=True):
        assert other["settings"].items() <= training["settings"].items()


def test_a_grid_finds_its_runs_under_the_names_that_they_had(nnlite):
    planned = written(RELEASED / "grid.json")
    for training in planned[::2]:
        folder = Path(training["path"])
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text(json.dumps({"settings": training["settings"]}), "utf-8")
    found = [Path(job.path) for job in read_grid(RELEASED / "grid.toml", Path("runs"))]
    assert found[::2] == [Path(training["path"]) for training in planned[::2]]
    for path, training in zip(found[1::2], planned[1::2], strict=True):  # a table with a name keeps it
        assert (path == Path(training["path"])) == path.name.startswith("two-terms")


def test_a_reproduction_goes_on_by_its_plan_and_keeps_its_scores(released):
    folder = released / "reproduced"
    plan = Plan(epochs=2, mt_epochs=1, seeds=(0, 1), hidden=(8,))
    Reproduction(folder, plan).reserve_folder()
    with pytest.raises(NnliteError, match=r"was made with other settings \(epochs 2\)"):
        Reproduction(folder, Plan(epochs=3, mt_epochs=1, seeds=(0, 1), hidden=(8,))).reserve_folder()
    found = {
        (adversary.slug, noise, victim.slug, str(seed), column): accuracy
        for (adversary, noise, victim), seeds in read_scores(folder).items()
        for seed, accuracies in enumerate(seeds)
        for column, accuracy in enumerate(accuracies)
    }
    said = list(csv.reader(io.StringIO((folder / "scores.csv").read_text("utf-8"))))[1:]
    assert len(said) == 160
    for k, (adversary, noise, victim, seed, _, accuracy) in enumerate(said):
        assert found.pop((adversary, noise, victim, seed, k % 5)) == float(accuracy)
    assert not found


def test_a_report_of_bench_is_drawn(nnlite, tmp_path):
    result = nnlite("bench", "plot", RELEASED / "bench.json", "--out", "times.svg")
    assert result.exit_code == 0
    assert "dgl1-lam0.01-phi0.1, batch 100" in (tmp_path / "times.svg").read_text("utf-8")


@pytest.mark.parametrize("file", ["weights.safetensors", "settings.json", "history.csv", "results.json"])
@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_run_that_is_half_moved_ends_in_one_error_or_is_skipped(nnlite, released, caplog, file, damage):
    path = released / "trained" / "digits" / "rect" / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = one_error(nnlite("attack", "--adversary", path.parent, "--runs", released / "trained"))
    if damage == "missing":
        assert f"{file} is missing" in error or "expected the name or path of a run" in error
    else:
        assert f"{path.parent}: the run folder is damaged (" in error
        assert error.endswith("); copy it again as a whole, or move it away and train it again")
    listed = nnlite("runs", "--runs", released / "trained", "--json")
    assert {run["name"] for run in json.loads(listed.stdout)} == {*RUNS} - {"rect"}
    assert caplog.messages[-1].startswith(f"skipped: {path.parent}: the run folder is damaged (")


@each_stopped
@pytest.mark.parametrize("size", [0, 7, 1000, 6000])
def test_a_checkpoint_that_is_half_moved_ends_in_one_error(nnlite, released, name, size):
    path = released / "trained" / "digits" / f".{name}.checkpoint"
    path.write_bytes(path.read_bytes()[:size])
    error = one_error(
        nnlite(*shlex.split(STOPPED[name][0]), "--runs", released / "trained", "--name", name, "--resume")
    )
    assert f"{path}: the checkpoint is damaged (" in error
    listed = nnlite("runs", "--runs", released / "trained")
    assert listed.exit_code == 0
    assert f"Warning: {path}: the checkpoint is damaged (" in listed.stderr


def test_a_run_whose_replacement_was_killed_half_way_is_there(nnlite, released):
    group = released / "trained" / "digits"
    (group / "rect").rename(group / ".rect.old")  # what 0.1.0 did before it moved the new one in
    found = json.loads(nnlite("runs", "--runs", released / "trained", "--json").stdout)
    assert {run["name"] for run in found} == set(RUNS)
