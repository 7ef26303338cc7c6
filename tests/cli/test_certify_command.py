"""`nnlite certify`: the library's figures in every form of output, and how the command ends."""

import json
import shutil

import numpy as np
import pytest

from nnlite.cli.certify import _print_radii
from nnlite.datasets.catalog import load
from nnlite.evaluation import certifying, radii
from nnlite.evaluation.certifying import CertifyOptions, bracket
from nnlite.evaluation.radii import Radii, find_radii
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

PLAIN = Settings(hidden=(32,), epochs=5)
OTHER = Settings(hidden=(32,), epochs=5, reg="dgl1", lam=0.01, phi=0.1, multitask=True, gamma=0.5)
MULTITASK = OTHER.method_name
PHI = "0.1,0.02"


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Two finished runs that no test changes, the second of two tasks."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, [make_run(settings, digits, folder, name=settings.method_name) for settings in (PLAIN, OTHER)]


@pytest.fixture
def certified(nnlite, trained, tmp_path):
    """Call `nnlite certify` beside a copy of the two runs, with few images."""
    shutil.copytree(trained[0], tmp_path / "runs")
    return lambda *args: nnlite("certify", "--phi", PHI, "--examples", 40, *args)


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C when the attack is called for the n-th time."""

    def at(n):
        calls, attack = [], certifying.evaluate_attack

        def count(*args, **more):
            calls.append(args)
            if len(calls) == n:
                raise KeyboardInterrupt
            return attack(*args, **more)

        monkeypatch.setattr(certifying, "evaluate_attack", count)

    return at


def test_json_holds_the_librarys_figures(certified, trained):
    result = certified("rect", MULTITASK, "--seed", 3, "--no-clip", "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content["data"], content["phi"], content["clip"], content["seed"]) == ("digits", [0, 0.02, 0.1], False, 3)
    for run, shown in zip(trained[1], content["runs"], strict=True):
        found = bracket(run.net, load("digits").test, CertifyOptions((0.02, 0.1), False, 40, 3))
        assert (shown["run"], shown["images"]) == (run.name, found.rows.tolist())
        assert shown["accuracy"] == {name: values.tolist() for name, values in found.accuracy.items()}
        low, high = found.intervals["unknown"]
        assert shown["intervals"]["unknown"] == [[one, other] for one, other in zip(low, high, strict=True)]
        assert (shown["contradictions"], shown["interrupted"]) == ([0, 0, 0], False)


def test_the_table_fits_80_columns_and_progress_goes_to_stderr(certified, trained, monkeypatch):
    monkeypatch.setattr("nnlite.cli.progress.PATIENCE", 0)  # as if all of it took long
    result = certified("rect")
    assert result.exit_code == 0, result.stderr
    title, _, head, _, *lines = result.stdout.rstrip().splitlines()
    assert title == "rect under noise within phi, pixels within [0, 1], 40 test images of digits"
    assert head.split() == ["phi", "proven", "unknown", "worst", "case"]
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert [line.split()[0] for line in lines] == ["0", "0.02", "0.1"]
    found = bracket(trained[1][0].net, load("digits").test, CertifyOptions((0.02, 0.1), True, 40))
    for line, proven, worst in zip(lines, found.accuracy["proven"], found.accuracy["worst"], strict=True):
        assert line.split()[1] == f"{proven:.1f}"
        assert f" {worst:.1f} [" in line
    assert any("rect" in line for line in result.stderr.splitlines())
    assert "the truth lies between" in result.stderr


def test_several_runs_stand_below_one_another(certified):
    result = certified("rect", MULTITASK, "--threads", 1)
    assert result.exit_code == 0, result.stderr
    titles = [line.split()[0] for line in result.stdout.splitlines() if "under noise" in line]
    assert titles == ["rect", MULTITASK]


def test_options_reach_the_library(nnlite, trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "runs")
    assert "500 test images" in nnlite("certify", "rect", "--phi", 0.5, "--examples", "all").stdout
    drawn = [nnlite("certify", "rect", "--phi", 0.3, "--seed", seed, "--json").stdout for seed in (0, 0, 1)]
    assert len(json.loads(drawn[0])["runs"][0]["images"]) == 100
    assert drawn[0] == drawn[1]
    assert json.loads(drawn[0])["runs"] != json.loads(drawn[2])["runs"]
    assert "pixels not clipped" in nnlite("certify", "rect", "--phi", 0.1, "--examples", 5, "--no-clip").stdout


def test_a_proven_image_that_falls_is_an_error(certified, monkeypatch):
    monkeypatch.setattr(certifying, "is_proven", lambda net, x, y, phi, **_: np.ones(len(y), bool))
    result = certified("rect")
    assert result.exit_code == 1
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    assert line.startswith("Error: rect: at phi 0 proven and broken are test images ")
    assert result.stdout.startswith("rect under noise")
    shown = json.loads(certified("rect", "--json").stdout)["runs"][0]
    assert sum(shown["contradictions"]) > 0


def test_ctrl_c_prints_what_is_finished(certified, interrupt):
    interrupt(2)
    result = certified("rect", MULTITASK, "--threads", 1)
    assert result.exit_code == 130
    assert "25 test images of digits" in result.stdout
    assert MULTITASK not in result.stdout
    assert result.stderr.splitlines()[-1] == "Interrupted after 25 images of rect."


def test_ctrl_c_keeps_the_runs_before(certified, interrupt):
    interrupt(3)
    result = certified("rect", MULTITASK, "--threads", 1, "--json")
    assert result.exit_code == 130
    (shown,) = json.loads(result.stdout)["runs"]
    assert (shown["run"], len(shown["images"]), shown["interrupted"]) == ("rect", 40, False)


def test_ctrl_c_at_once_prints_nothing(certified, interrupt):
    interrupt(1)
    result = certified("rect", "--threads", 1, "--json")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "Interrupted.")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "Missing argument 'RUN...'"),
        (["nobody"], "run: expected the name or path of a run, found 'nobody'; there are"),
        (["rect", "rect"], "run: expected runs of different names, found one twice"),
        (["rect", "--phi", "1.5"], "phi: expected numbers from 0 to 1"),
        (["rect", "--phi", "0"], "one of them above 0"),
        (["rect", "--phi", "-0.1"], "phi: expected one or more sizes of noise, each a number from 0"),
        (["rect", "--examples", "some"], "expected a number or all, found 'some'"),
        (["rect", "--examples", "0"], "examples: expected an integer of at least 1, found 0"),
        (["rect", "--data", "letters"], "data: expected one of digits, mnist, fashion-mnist, kmnist, or the path of"),
    ],
)
def test_bad_input_is_refused(nnlite, trained, tmp_path, options, words):
    shutil.copytree(trained[0], tmp_path / "runs")
    result = nnlite("certify", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_real_mnist(mnist, nnlite, monkeypatch, tmp_path):
    make_run(Settings(data="mnist", hidden=(32,), epochs=1), mnist, tmp_path / "runs", name="rect")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    result = nnlite("certify", "rect", "--data", "mnist", "--examples", 10, "--phi", 0.01, "--json")
    assert result.exit_code == 0, result.stderr
    proven, worst = (json.loads(result.stdout)["runs"][0]["accuracy"][name] for name in ("proven", "worst"))
    assert 0 < proven[1] <= worst[1]


# --- image by image


def test_the_radii_of_each_image_are_the_librarys(certified, trained):
    content = json.loads(certified("rect", MULTITASK, "--per-image", "--examples", 4, "--seed", 1, "--json").stdout)
    for run, shown in zip(trained[1], content["runs"], strict=True):
        found, each = find_radii(run.net, load("digits").test, CertifyOptions(examples=4, seed=1)), shown["per_image"]
        assert each["images"] == shown["images"]
        for name in ("proven", "broken", "distance"):
            assert each[name] == getattr(found, name).tolist()
            assert each["medians"][name] == found.medians[name]
        assert (each["closed"], each["interrupted"]) == (found.closed, False)


def test_a_summary_of_the_radii_is_printed_and_a_picture_drawn(certified, tmp_path):
    result = certified("rect", MULTITASK, "--examples", 5, "--plot", "made/radii.png")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    k = lines.index("phi of each image that is right without noise, in the median")
    assert [line.split()[0] for line in lines[k + 4 : k + 6]] == ["rect", MULTITASK]
    assert (tmp_path / "made" / "radii.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "drew made/radii.png" in result.stderr


def test_where_nothing_is_right_there_is_no_radius(capsys):
    _print_radii({"lost": Radii(np.zeros(3), np.zeros(3), np.zeros(3), np.arange(3), False)}, "rows")
    printed = capsys.readouterr().out
    assert "phi of each row that is right without noise, in the median" in printed
    assert "lost 0 - - - -" in " ".join(printed.split())


def test_an_image_proven_beyond_what_breaks_it_is_an_error(certified, monkeypatch):
    monkeypatch.setattr(radii, "is_proven", lambda net, x, y, phi, **_: np.ones(len(y), bool))
    result = certified("rect", "--examples", 12, "--per-image")
    assert result.exit_code == 1
    assert "Error: rect: proven beyond the noise that breaks them are test images " in result.stderr


def test_a_picture_of_no_known_format_is_refused_at_once(certified):
    result = certified("rect", "--plot", "radii.doc")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "picture: expected a name that ends in .png" in result.stderr
