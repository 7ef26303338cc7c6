"""`nnlite verify`: an attack file as saved passes; whatever differs is printed and ends with exit code 1."""

import json
import shutil

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from nnlite.evaluation.attack_file import KEY
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """Two finished runs, that no test changes."""
    folder = tmp_path_factory.mktemp("runs")
    rect = make_run(Settings(hidden=(16,), epochs=5, lr=0.5), digits, folder, name="rect")
    return folder, [rect, make_run(Settings(hidden=(8,), epochs=1), digits, folder, name="other")]


@pytest.fixture
def attacked(nnlite, made, tmp_path):
    """Attack 40 images with clipped R1 noise and keep them in FILE; return what calls nnlite there."""
    shutil.copytree(made[0], tmp_path / "runs")
    options = ("--adversary", "rect", "--victim", "rect", "--clip", "--first", 40, "--phi", "0,0.1")
    result = nnlite("attack", *options, "--save", "FILE", "--json")
    assert result.exit_code == 0
    nnlite.found = json.loads(result.stdout)
    return nnlite


def edit(change, record=None):
    """Change the arrays and the record of FILE."""
    arrays = safetensors.numpy.load_file("FILE")
    with safetensors.safe_open("FILE", "np") as file:
        content = json.loads(file.metadata()[KEY]) | (record or {})
    change(arrays)
    safetensors.numpy.save_file(arrays, "FILE", {KEY: json.dumps(content)})


def test_what_was_saved_passes_and_the_table_says_so(attacked):
    result = attacked("verify", "FILE", "--run", "rect")
    assert result.exit_code == 0
    title, head, _, clean, noisy, last = [line for line in result.stdout.splitlines() if line.strip()]
    assert title == "FILE: R1 noise, clipped to [0, 1]; crafted by rect on 40 test images of digits"
    assert " ".join(head.split()) == "phi L-infinity norm lowest pixel highest pixel rect recorded found verdict"
    accuracy = [f"{value:.2f}" for value in attacked.found["accuracy"]["rect"]]
    assert clean.split() == ["0", "0.000000", "0.000000", "1.000000", accuracy[0], accuracy[0], "pass"]
    assert noisy.split() == ["0.1", "0.100000", "0.000000", "1.000000", accuracy[1], accuracy[1], "pass"]
    assert last == "pass  all is as the file says"
    assert result.stderr == ""


def test_json_holds_all_of_it(attacked):
    result = attacked("verify", "FILE", "--run", "rect", "--run", "runs/digits/other", "--json")
    content = json.loads(result.stdout)
    assert result.exit_code == 0
    assert content["examples"] == 40
    assert content["record"]["attack"] == "R1 noise, clipped to [0, 1]"
    assert (content["record"]["norm"], content["record"]["clip"], content["record"]["phi"]) == ("linf", True, [0, 0.1])
    assert content["images"][1]["norm"] == pytest.approx(0.1, abs=1e-6)
    rect, other = content["runs"]
    assert rect["recorded"] == rect["found"] == attacked.found["accuracy"]["rect"]
    assert rect["sha256"] == content["record"]["adversary"]["sha256"]
    assert other["recorded"] is None
    assert len(other["found"]) == 2
    assert content["failures"] == []
    assert "other is unknown to the file" in result.stderr


def test_without_a_run_no_accuracy_is_checked_and_that_is_said(attacked):
    def change(arrays):
        arrays["right"][0, 1] += 1

    edit(change)
    result = attacked("verify", "FILE")
    assert result.exit_code == 0
    assert "rect recorded" not in result.stdout
    assert "no accuracy was checked, name a run with --run" in result.stdout
    assert attacked("verify", "FILE", "--run", "rect").exit_code == 1


def test_each_difference_is_printed_and_the_exit_code_is_1(attacked):
    def change(arrays):
        arrays["labels"][3] = (arrays["labels"][3] + 1) % 10
        arrays["images1"][4, 0] = np.nan
        arrays["images1"][5, 0] = 0.5
        arrays["right"][0, 0] -= 1

    edit(change)
    result = attacked("verify", "FILE", "--run", "rect")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("0")] == ["FAIL", "FAIL"]
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) >= 4
    assert failed[0] == "FAIL  labels that differ from those of the data: 1 of 40 images, the first in row 3"
    assert failed[1] == "FAIL  phi 0.1: NaN or infinity: 1 of 40 images, the first in row 4"
    assert failed[2] == "FAIL  phi 0.1: noise larger than phi: 1 of 40 images, the first in row 5"
    assert any("phi 0: rect classifies" in line for line in failed)
    assert "pass  " not in result.stdout
    content = json.loads(attacked("verify", "FILE", "--run", "rect", "--json").stdout, parse_constant=pytest.fail)
    assert [
        f"FAIL  {'' if phi is None else f'phi {phi:g}: '}{text}" for phi, text in map(dict.values, content["failures"])
    ] == failed
    assert content["images"][1]["norm"] is None


def test_other_weights_are_told(attacked, made):
    shutil.copytree(made[1][1].path, "runs/digits/rect", dirs_exist_ok=True)
    result = attacked("verify", "FILE", "--run", "rect")
    assert result.exit_code == 1
    assert "FAIL  rect has other weights: SHA-256 " in result.stdout


def test_noise_without_a_radius_is_told(attacked):
    assert attacked("attack", "--adversary", "rect", "--noise", "r2", "--first", 40, "--save", "R2").exit_code == 0
    result = attacked("verify", "R2", "--run", "rect", "--run", "other")
    assert result.exit_code == 0
    assert "phi is no radius of this noise" in result.stderr
    assert "other recorded" in result.stdout


def test_a_strangers_text_is_printed_as_it_is(attacked):
    edit(lambda arrays: None, {"attack": "[/red] [bold]noise"})
    result = attacked("verify", "FILE")
    assert result.exit_code == 0
    assert result.stdout.startswith("FILE: [/red] [bold]noise; crafted by rect")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nothing"], "nothing: cannot read it"),
        (["runs"], "runs: cannot read it (Is a directory)"),
        (["junk"], "junk: expected a safetensors file, found a damaged one"),
        (["runs/digits/rect/weights.safetensors"], "expected an attack file of nnlite"),
        (["FILE", "--run", "nope"], "found 'nope'"),
        (["FILE", "--run", "rect", "--run", "runs/digits/rect"], "found one twice"),
        (["FILE", "--run", "broken"], "broken/weights.safetensors: expected a safetensors file"),
        ([], "FILE"),
    ],
)
def test_bad_input_exits_2_without_a_result(attacked, tmp_path, options, words):
    (tmp_path / "junk").write_bytes(b"junk" * 9)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "weights.safetensors").write_bytes(b"")
    result = attacked("verify", *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr
