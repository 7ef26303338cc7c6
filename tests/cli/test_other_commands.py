"""`nnlite runs`, `data`, `gradcheck`, `bench`, the help of all, and the version."""

import json
from dataclasses import asdict, replace

import pytest

from nnlite import __version__
from nnlite.cli.main import main
from nnlite.datasets import DATASETS
from nnlite.layers import Dense, ReLU
from nnlite.training.runs import load_run

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
    rect, l1 = (line.split() for line in result.stdout.splitlines() if "digits/" in line)
    found = load_run(tmp_path / "runs" / "digits" / "rect").results
    assert rect[:4] == ["digits/rect", "3", "of", "3"]
    assert rect[4:6] == [f"{found.validation:.2f}", f"{found.test:.2f}"]
    assert rect[6:] == [*(f"{value:.2f}" for value in found.self_attack[1:]), "finished"]
    assert l1[0] == "digits/l1-lam0.1"


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
    digits, mnist = json.loads(nnlite("data", "--json").stdout)
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
