"""`nnlite grid`: what it prints, that it continues where it was, and how it ends."""

import json
import sys

import pytest

from nnlite.training.run_folder import load_run

pytestmark = pytest.mark.once

GRID = """
hidden = [8]
epochs = 2
[[models]]
lr = [0.1, 0.2]
[[models]]
reg = "dgl1"
lam = 0.01
phi = 0.1
"""
NAMES = ["rect-hidden8-epochs2", "rect-hidden8-lr0.2-epochs2", "dgl1-lam0.01-phi0.1-hidden8-epochs2"]
OPTIONS = ["--hidden", "8", "--epochs", "1"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(GRID, "utf-8")
    return path


def rows(stdout):
    return [line.split() for line in stdout.splitlines() if line.startswith("digits/")]


def test_a_grid_is_trained_and_its_runs_are_listed(nnlite, file, tmp_path):
    result = nnlite("grid", file, "--jobs", 2)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[0].endswith("3 of 3 nets are left to train")
    assert {line.split()[-1] for line in result.stderr.splitlines()[1:]} == set(NAMES)
    assert result.stderr.splitlines()[-1].startswith("100 %")
    for name, row in zip(NAMES, rows(result.stdout), strict=True):
        found = load_run(tmp_path / "runs" / "digits" / name).results
        figures = (found.validation, found.test, found.self_attack[-1])
        assert row == [f"digits/{name}", *(f"{figure:.2f}" for figure in figures), "finished"]
    again = nnlite("grid", file)
    assert again.stdout == result.stdout
    assert again.stderr == "100 %  0 of 3 nets are left to train\n"


def test_json_holds_the_settings_and_the_results(nnlite, tmp_path):
    result = nnlite("grid", *OPTIONS, "--lr", "0.1,1e8", "--hidden", "16,16,16", "--jobs", 1, "--json")
    assert result.exit_code == 1, result.stderr  # one diverges
    entries = json.loads(result.stdout)
    assert [entry["name"] for entry in entries] == [
        "rect-hidden8-epochs1",
        "rect-hidden8-lr1e+08-epochs1",
        "rect-hidden16-16-16-epochs1",
        "rect-hidden16-16-16-lr1e+08-epochs1",
    ]
    lost = entries[-1]
    assert (lost["settings"]["lr"], lost["results"]) == (1e8, None)
    assert entries[0]["results"]["status"] == "finished"
    assert entries[0]["path"] == f"runs/digits/{entries[0]['name']}"
    assert "diverged in epoch 1; nothing was saved" in result.stderr


@pytest.mark.parametrize(("lr", "diverged"), [("1e8", 1), ("0.1,1e8", 1), ("1e8,1e9", 2)])
def test_a_diverged_net_has_a_row_and_the_exit_code_is_1(nnlite, lr, diverged):
    result = nnlite("grid", "--hidden", "16,16,16", "--epochs", 1, "--lr", lr, "--jobs", 1)
    count = lr.count(",") + 1
    assert result.exit_code == 1
    assert [row[-1] for row in rows(result.stdout)] == ["finished"] * (count - diverged) + ["diverged"] * diverged
    assert f"{diverged} of {count} nets diverged, or are no better than a guess; try another --lr" in result.stderr


def test_a_net_no_better_than_a_guess_is_kept_and_the_exit_code_is_1(nnlite):
    result = nnlite("grid", "--hidden", "64", "--epochs", 2, "--lr", "0.1,1000", "--jobs", 1)
    assert (result.exit_code, [row[-1] for row in rows(result.stdout)]) == (1, ["finished", "failed"])
    assert "rect-hidden64-lr1000-epochs2: no better than a guess, validation" in result.stderr
    assert nnlite("grid", "--hidden", "64", "--epochs", 2, "--lr", "0.1,1000", "--dry-run").stdout.startswith("0 of 2")


def test_a_dry_run_lists_and_trains_nothing(nnlite, file, tmp_path):
    result = nnlite("grid", file, "--dry-run", "--stack", 2)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == (
        "3 of 3 nets are left to train, in 2 stacks, at the cost of 8 epochs of a plain net"
    )
    assert [(row[0].split("/")[1], *row[1:]) for row in rows(result.stdout)] == [
        (NAMES[0], "2", "1", "missing"),
        (NAMES[1], "2", "1", "missing"),
        (NAMES[2], "4", "2", "missing"),
    ]
    assert not (tmp_path / "runs").exists()
    nnlite("grid", file, "--jobs", 1)
    assert [row[2:] for row in rows(nnlite("grid", file, "--dry-run").stdout)] == [["trained"]] * 3
    (entry, *_) = json.loads(nnlite("grid", file, "--dry-run", "--json").stdout)
    assert (entry["name"], entry["cost"], entry["stack"], entry["settings"]["lr"]) == (NAMES[0], 2, None, 0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected a grid FILE, or settings as options"),
        (["grid.toml", "--lr", "0.1"], "expected a grid FILE, or settings as options"),
        (["nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--lam", "0.1"], "options: lam: method none does not use it"),
        (["--lr", "0.1,0.1"], "two nets are named digits/rect"),
        (["--lr", "fast"], "fast"),
        (["--reg", "dgl9"], "dgl9"),
        (["--stack", "0", "--lr", "0.1"], "--stack"),
        (["--device", "gpu"], "CuPy"),
        (["--device", "gpu", "--scheduler", "tcp://127.0.0.1:9"], "--stack"),
        (["--lr", "0.1", "--hidden", "10000000,1000"], "memory: 1 model needs about"),
    ],
)
def test_bad_input_exits_2_before_anything_is_trained(nnlite, file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = nnlite("grid", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "trained" not in result.stderr.replace("left to train", "")
    assert not list(tmp_path.rglob("weights.safetensors"))


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(nnlite, ctrl_c, tmp_path):
    arguments = ["grid", "--hidden", "64", "--epochs", "100", "--seed", "0,1,2,3", "--jobs", "2"]
    assert ctrl_c(*arguments).endswith("Interrupted: finished runs are kept; the same command continues.\n")
    folders = list((tmp_path / "runs" / "digits").glob("[!.]*"))
    assert {load_run(path).results.status for path in folders} == {"finished"}
    assert 1 <= len(folders) < 4
    result = nnlite(*arguments)
    assert f"{4 - len(folders)} of 4 nets are left" in result.stderr
    assert [row[:2] for row in rows(result.stdout)] == [["digits/rect-hidden64-epochs100", "4"]]
