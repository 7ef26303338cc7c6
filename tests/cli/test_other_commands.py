"""`nnlite runs`, `data`, `gradcheck`, `bench`, the help of all, and the version."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import safetensors.numpy

from nnlite import __version__
from nnlite.cli.main import main
from nnlite.datasets import DATASETS
from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.layers import Dense, ReLU
from nnlite.training.run_folder import Results, load_run
from nnlite.training.settings import Settings

CLOSED_PORT = "http://127.0.0.1:9/"


def commands(group, *names):
    """Yield the names that lead to each command."""
    yield names
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *names, name)


def test_the_version(nnlite):
    result = nnlite("--version")
    assert result.exit_code == 0
    assert result.stdout.split()[-1] == __version__


@pytest.mark.parametrize("command", [*commands(main)], ids=" ".join)
def test_every_command_has_help_for_a_terminal_of_80_columns(nnlite, command):
    result = nnlite(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert nnlite(*command, "-h").stdout == result.stdout


def test_an_unknown_command_exits_2(nnlite):
    result = nnlite("tain")
    assert result.exit_code == 2
    assert "tain" in result.stderr


# --- runs


def test_runs_are_listed_with_their_figures(nnlite, tmp_path):
    nnlite("train", "--hidden", 16, "--epochs", 3, "--name", "rect")
    nnlite("train", "--hidden", 16, "--epochs", 1, "--reg", "l1", "--lam", 0.1, "--name", "l1-lam0.1")
    result = nnlite("runs")
    assert result.exit_code == 0
    assert result.stderr == ""
    rect, l1 = (line.split() for line in result.stdout.splitlines()[4:-1])
    found = load_run(tmp_path / "runs" / "digits" / "rect").results
    figures = (found.validation, found.test, found.self_attack[-1])
    assert rect == ["rect", *(f"{figure:.2f}" for figure in figures), "3/3", "finished"]
    assert l1[0] == "l1-lam0.1"


@pytest.fixture
def many(tmp_path):
    """Records of runs with long names and figures by hand, in two data sets; their weights cannot be trained on."""
    net = {"dense0.W": np.zeros((64, 10), np.float32), "dense0.b": np.zeros(10, np.float32)}
    for k, more in enumerate(
        [{}, {"seed": 1}, {"lr": 0.01}, {"reg": "dgl1", "lam": 0.01, "phi": 0.1}, {"reg": "l2", "lam": 1e-5}]
    ):
        settings = Settings(hidden=(), epochs=20, **more)
        path = tmp_path / "runs" / "digits" / settings.run_name
        path.mkdir(parents=True)
        safetensors.numpy.save_file(net, path / "weights.safetensors")
        (path / "settings.json").write_text(json.dumps({"settings": asdict(settings), "versions": {}}))
        (path / "history.csv").write_text("epoch,loss,validation,seconds\n" + "1,1.0,50.0,1.0\n")
        status = "failed" if k == 4 else "finished"
        accuracies = [90.0 - k, 80.0, 70.0, 60.0, 50.0 + k]
        results = Results(status, 1, 95.0 - (k - 2) ** 2, accuracies[0], PAPER_PHI, tuple(accuracies))
        (path / "results.json").write_text(json.dumps(asdict(results)))
    return tmp_path / "runs" / "digits"


def names(result):
    assert result.exit_code == 0, result.stderr
    return [run["settings"]["reg"] + str(run["settings"]["seed"] or "") for run in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        ((), ["none", "none1", "none", "l2", "dgl1"]),
        (("--sort", "test"), ["none", "none1", "none", "dgl1", "l2"]),
        (("--sort", "validation"), ["none", "none1", "dgl1", "none", "l2"]),
        (("--sort", "phi"), ["l2", "dgl1", "none", "none1", "none"]),
        (("--sort", "name"), ["dgl1", "l2", "none", "none1", "none"]),
        (("--where", "reg=dgl1"), ["dgl1"]),
        (("--where", "status=failed"), ["l2"]),
        (("--where", "reg=none", "--where", "lr=0.10"), ["none", "none1"]),
        (("--where", "lam=0.00001"), ["l2"]),
        (("--where", "batch-size=100", "--where", "hidden=", "--where", "multitask=false"), 5),
        (("--where", "seed=7"), []),
    ],
)
def test_runs_are_sorted_and_filtered(nnlite, many, options, listed):
    found = names(nnlite("runs", "--json", *options))
    assert (len(found) if listed == 5 else found) == listed


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("reg", "expected NAME=VALUE, where the name is status, reg, lam"),
        ("rge=dgl1", "expected NAME=VALUE"),
        ("reg=dgl9", "reg: expected one of none, l1"),
        ("status=lost", "status: expected one of finished, interrupted, diverged, failed, found 'lost'"),
        ("lr=fast", "lr: expected a number, found 'fast'"),
    ],
)
def test_a_wrong_condition_is_an_error(nnlite, many, condition, words):
    result = nnlite("runs", "--where", condition)
    assert (result.exit_code, result.stdout, words in result.stderr) == (2, "", True)


@pytest.mark.parametrize("where", [("reg=none",), ("status=finished",), ("status=failed",), ()])
@pytest.mark.parametrize("length", [1, 42, 43, 46])
def test_a_table_of_runs_fits_80_columns_and_no_name_is_cut(nnlite, many, where, length):
    for k, path in enumerate(sorted(many.iterdir())):
        path.rename(many / f"{k}{'x' * (length - 1)}")
    lines = nnlite("runs", *(word for one in where for word in ("--where", one))).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert {len(line.split()[0]) for line in lines[4:-1]} == {length}


def test_each_data_set_has_a_table(nnlite, many):
    path = next(many.iterdir())
    (many.parent / "mnist").mkdir()
    content = json.loads((path / "settings.json").read_text())
    content["settings"]["data"] = "mnist"
    (path / "settings.json").write_text(json.dumps(content))
    net = {"dense0.W": np.zeros((784, 10), np.float32), "dense0.b": np.zeros(10, np.float32)}
    safetensors.numpy.save_file(net, path / "weights.safetensors")
    path.rename(many.parent / "mnist" / path.name)
    out = nnlite("runs").stdout
    assert [line for line in out.splitlines() if line.startswith("Runs on")] == [
        "Runs on digits: accuracy in %, under the run's own R1 noise at phi, best epoch",
        "Runs on mnist: accuracy in %, under the run's own R1 noise at phi, best epoch",
    ]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_folder_of_runs_that_is_not_there_is_an_error(nnlite, options):
    result = nnlite("runs", "--runs", "rnus", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "runs: there is no folder rnus" in result.stderr


def test_runs_as_json(nnlite, tmp_path):
    nnlite("train", "--hidden", 16, "--epochs", 2, "--name", "rect")
    (entry,) = json.loads(nnlite("runs", "--json").stdout)
    run = load_run(tmp_path / "runs" / "digits" / "rect")
    assert (entry["name"], entry["path"]) == ("rect", "runs/digits/rect")
    assert entry["settings"] == json.loads(json.dumps(asdict(run.settings)))
    assert entry["results"] == json.loads(json.dumps(asdict(run.results)))
    assert json.loads(nnlite("runs", "--data", "mnist", "--json").stdout) == []


def test_where_there_are_no_runs_it_says_how_to_make_one(nnlite, tmp_path):
    result = nnlite("runs")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "nnlite train" in result.stderr
    assert json.loads(nnlite("runs", "--json").stdout) == []
    assert list(tmp_path.iterdir()) == []


# --- data


def test_data_sets_are_listed_with_source_and_place(nnlite):
    result = nnlite("data")
    assert result.exit_code == 0
    for words in ("1,097 / 200 / 500", "inside nnlite", "CC BY 4.0", "not here: --fetch", "Alpaydin", "LeCun"):
        assert words in result.stdout


def test_data_as_json(nnlite):
    digits, mnist, *_ = json.loads(nnlite("data", "--json").stdout)
    assert (digits["name"], digits["place"]) == ("digits", "inside nnlite")
    assert mnist["name"] == "mnist"


def test_the_place_of_mnist_is_the_named_folder(nnlite, tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    for file in DATASETS["mnist"].files:
        (tmp_path / "mnist" / file.name).touch()
    monkeypatch.setenv("NNLITE_DATA", str(tmp_path))
    assert json.loads(nnlite("data", "--json").stdout)[1]["place"] == str(tmp_path / "mnist")


def test_fetching_without_a_network_exits_2_and_says_what_to_do(nnlite, monkeypatch):
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], mirrors=(CLOSED_PORT,)))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    result = nnlite("data", "--fetch", "mnist")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert CLOSED_PORT in result.stderr
    assert "NNLITE_DATA" in result.stderr


# --- gradcheck


def test_gradcheck_passes(nnlite):
    result = nnlite("gradcheck", "--hidden", "6,5")
    assert result.exit_code == 0
    assert result.stdout.count("pass") == 7  # W and b of three layers, and the input
    assert "FAIL" not in result.stdout


@pytest.mark.parametrize(
    ("layer", "rule", "broken"),
    [
        (ReLU, "backward", lambda self, x, dy: dy),
        (Dense, "backward", lambda self, x, dy: 1.001 * dy @ self.W.swapaxes(-1, -2)),
        (Dense, "gradients", lambda self, x, dy, **_: {"W": x.swapaxes(-1, -2) @ dy, "b": 1.001 * dy.sum(axis=-2)}),
    ],
    ids=["ReLU", "Dense", "bias"],
)
def test_gradcheck_fails_where_a_rule_is_wrong(nnlite, monkeypatch, layer, rule, broken):
    monkeypatch.setattr(layer, rule, broken)
    if rule == "gradients":
        monkeypatch.setattr(Dense, "add_gradients", None)
    result = nnlite("gradcheck", "--hidden", "6,5")
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    content = nnlite("gradcheck", "--hidden", "6,5", "--json")
    assert content.exit_code == 1
    assert json.loads(content.stdout)["passed"] is False


def test_gradcheck_as_json(nnlite):
    content = json.loads(nnlite("gradcheck", "--hidden", "6", "--features", 3, "--classes", 4, "--json").stdout)
    assert content["passed"] is True
    assert {check["name"]: check["shape"] for check in content["checks"]} == {
        "layer 0 W": [3, 6],
        "layer 0 b": [6],
        "layer 2 W": [6, 4],
        "layer 2 b": [4],
        "input x": [5, 3],
    }
    assert all(check["error"] < content["tolerance"] for check in content["checks"])


@pytest.mark.parametrize("options", [["--hidden", "0"], ["--hidden", "x"], ["--classes", "1"], ["--seed", "-1"]])
def test_gradcheck_refuses_bad_input(nnlite, options):
    result = nnlite("gradcheck", *options)
    assert result.exit_code == 2
    assert result.stdout == ""
