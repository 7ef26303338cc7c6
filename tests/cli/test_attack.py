"""`nnlite attack`: its figures are the library's and those of a forward pass by hand, in every form of output."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from nnlite.attacks import PGD, R1, R2
from nnlite.datasets import Dataset, check_samples, load
from nnlite.evaluation.accuracy import AttackTable, evaluate_attack
from nnlite.evaluation.attack_file import open_attack, verify, weights_of
from nnlite.evaluation.named_attacks import NAMED_ATTACKS
from nnlite.lbfgs import LBFGS
from nnlite.training.run_folder import load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

QUICK = Settings(hidden=(16,), epochs=5, lr=0.5)
ROBUST = Settings(hidden=(8,), epochs=5, lr=0.5, reg="dgl1", lam=0.01, phi=0.1)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Two finished runs of different nets, that no test changes."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, [make_run(settings, digits, folder, name=settings.method_name) for settings in (QUICK, ROBUST)]


@pytest.fixture
def attacked(nnlite, trained, tmp_path):
    """Call `nnlite attack` beside a copy of the two runs."""
    shutil.copytree(trained[0], tmp_path / "runs")
    return lambda *args: nnlite("attack", *args)


def test_json_holds_the_librarys_figures(attacked, trained):
    result = attacked("--adversary", "rect", "--json")
    assert result.exit_code == 0
    rect, robust = trained[1]
    table = evaluate_attack(rect.net, {"rect": rect.net, robust.name: robust.net}, load("digits").test, R1)
    content = json.loads(result.stdout)
    assert len(content.pop("rows")) == 2 * 5
    assert content == {
        "adversary": "rect",
        "data": "digits",
        "examples": 500,
        "noise": "r1",
        "norm": "linf",
        "clip": False,
        "parameters": {},
        "seed": None,
        "dtype": "float32",
        "target": None,
        "labels": "true",
        "columns": {"frozen": [], "limits": {}, "whole": []},
        "phi": [0, 0.005, 0.01, 0.05, 0.1],
        "reached": {},
        "accuracy": {name: values.tolist() for name, values in table.accuracy.items()},
        "zero_share": table.zero_share,
        "failed": None,
        "median_noise": {},
    }


def test_options_reach_the_library(attacked, trained):
    options = ("--noise", "r2", "--phi", "0,0.5", "--clip", "--dtype", "float64", "--victim", "rect")
    result = attacked("--adversary", "dgl1-lam0.01-phi0.1", *options, "--json")
    rect, robust = (run.net.astype(np.float64) for run in trained[1])
    table = evaluate_attack(robust, {"rect": rect}, load("digits").test, replace(R2, clip=True), (0.0, 0.5))
    content = json.loads(result.stdout)
    assert content["accuracy"] == {"rect": table.accuracy["rect"].tolist()}
    assert (content["noise"], content["clip"], content["dtype"], content["phi"]) == ("r2", True, "float64", [0, 0.5])


@pytest.mark.parametrize(("noise", "norm"), [("pgd", "linf"), ("pgd-l2", "l2")])
def test_pgd_is_the_librarys_with_its_options_and_its_seed(attacked, trained, noise, norm):
    options = ("--steps", 5, "--restarts", 2, "--stride", 0.4, "--seed", 3, "--victim", "rect")
    content = json.loads(attacked("--adversary", "rect", "--noise", noise, *options, "--json").stdout)
    net = trained[1][0].net
    phi = (0.0, 0.005, 0.01, 0.05, 0.1) if norm == "linf" else (0.0, 0.25, 0.5, 1.0, 2.0)
    made = PGD(norm, steps=5, restarts=2, stride=0.4)
    assert tuple(content["phi"]) == phi
    assert content["accuracy"]["rect"] == list(
        evaluate_attack(net, {"rect": net}, load("digits").test, made, phi, seed=3).accuracy["rect"]
    )
    assert (content["norm"], content["clip"], content["seed"]) == (norm, True, 3)
    assert content["parameters"] == {"steps": 5, "restarts": 2, "stride": 0.4}


def test_the_title_names_the_attack_with_all_it_was_told(attacked):
    result = attacked("--adversary", "rect", "--noise", "pgd", "--steps", 5, "--restarts", 2, "--phi", 0.1)
    words = "L-infinity norm, steps 5, restarts 2, stride 0.5, seed 0, clipped to [0, 1]"
    assert result.stdout.startswith(f"rect crafts PGD noise on 500 test images of digits, {words}\n")
    options = ("--noise", "pgd-l2", "--steps", 3, "--stride", 1, "--seed", 7, "--no-clip", "--phi", 1, "--first", 20)
    result = attacked("--adversary", "rect", *options)
    words = "L2 norm, steps 3, restarts 1, stride 1, seed 7, not clipped"
    assert result.stdout.startswith(f"rect crafts PGD noise on 20 test images of digits, {words}\n")
    assert "phi is the length of the noise in the L2 norm" in result.stderr
    rows = list(csv.reader(attacked("--adversary", "rect", *options, "--csv").stdout.splitlines()))
    assert rows[0] == ["adversary", "noise", "victim", "phi", "accuracy"]
    assert [row[:2] for row in rows[1:]] == [["rect", f"PGD noise, {words}"]] * 2


def test_fgsm_is_another_name_of_r1(attacked):
    for form in ("--json", "--csv"):
        assert (
            attacked("--adversary", "rect", "--noise", "fgsm", form).stdout
            == attacked("--adversary", "rect", form).stdout
        )


def test_the_help_says_of_each_attack_what_it_is_and_of_each_option_who_takes_it(nnlite):
    words = " ".join(nnlite("attack", "--help").stdout.split())
    for name, row in NAMED_ATTACKS.items():
        assert f" {', '.join([name, *row.aliases])} {row.summary}" in words
    few = "pgd, pgd-l2: 40; apgd, apgd-t, apgd-l2: 70"
    others = "fmn, fmn-l2, autopgd: 100; deepfool: 50; carlini, hopskipjump: 10"
    assert f"--steps INTEGER Steps. [{few}; {others}]" in words
    assert "--stride FLOAT Size of a step, as a share of phi; 2.5 / steps if not given. [pgd, pgd-l2]" in words
    assert "[default: yes, but not for r1, r2]" in words


def test_progress_goes_to_stderr_where_the_attack_takes_long(attacked, monkeypatch):
    monkeypatch.setattr("nnlite.cli.progress.PATIENCE", 0)
    monkeypatch.setattr("nnlite.cli.progress.PAUSE", 0)
    result = attacked("--adversary", "rect", "--noise", "pgd", "--steps", 2, "--threads", 1, "--json")
    assert json.loads(result.stdout)["examples"] == 500
    shown = [line for line in result.stderr.splitlines() if line.endswith("  PGD noise")]
    percent = [int(line.partition("%")[0]) for line in shown]
    assert percent == sorted(percent)
    assert {0, 50, 100} < set(percent)  # each block, and each step within it


def test_only_the_first_images_are_attacked_on_request(attacked, trained):
    content = json.loads(attacked("--adversary", "rect", "--first", 30, "--victim", "rect", "--json").stdout)
    net = trained[1][0].net
    table = evaluate_attack(net, {"rect": net}, load("digits").test[:30], R1)
    assert content["accuracy"]["rect"] == table.accuracy["rect"].tolist()
    assert content["examples"] == 30


def test_lbfgs_is_the_librarys_and_says_what_it_found(attacked, trained):
    result = attacked("--adversary", "rect", "--noise", "lbfgs", "--victim", "rect", "--first", 40, "--json")
    content = json.loads(result.stdout)
    net = trained[1][0].net
    table = evaluate_attack(net, {"rect": net}, load("digits").test[:40], LBFGS(), (0.0, 0.25, 0.5, 1.0, 2.0))
    assert content["accuracy"]["rect"] == table.accuracy["rect"].tolist()
    assert content["median_noise"] == table.lengths
    assert content["parameters"] == {"searches": 10, "iterations": 50}
    x, y = load("digits").test.batch(slice(0, 40))
    failed = LBFGS().craft(net, x, y, (1.0,), np.random.default_rng(0)).failed
    assert content["failed"] == table.failed == failed.sum()
    assert ("the attack itself failed" in result.stderr) == failed.any()
    l2, linf = (f"{content['median_noise'][norm]:.3g}" for norm in ("l2", "linf"))
    words = f"smallest noise found that fools rect: {l2} in the L2 norm, {linf} in the L-infinity norm"
    assert words in result.stderr


@pytest.mark.parametrize(("failed", "size"), [(3, 0.25), (40, np.nan)])
def test_what_an_attack_could_not_do_is_told(attacked, monkeypatch, failed, size):
    figures = {"rect": np.array([90.0])}
    lengths = {norm: np.array(size) for norm in ("l2", "linf")}
    table = AttackTable((1.0,), figures, None, failed=np.array(failed), lengths=lengths)
    monkeypatch.setattr("nnlite.evaluation.attacking.evaluate_attack", lambda *args, **options: table)
    result = attacked("--adversary", "rect", "--noise", "lbfgs", "--victim", "rect", "--json")
    content = json.loads(result.stdout, parse_constant=pytest.fail)  # NaN is no JSON
    assert content["failed"] == failed
    assert content["median_noise"]["l2"] == (None if np.isnan(size) else size)
    assert f"the attack itself failed on {failed} of 500 images" in result.stderr
    assert ("median size" in result.stderr) == (not np.isnan(size))


def test_an_attack_of_the_toolbox_runs_by_name(attacked, art):
    options = ("--noise", "deepfool", "--steps", 5, "--phi", "0,1", "--victim", "rect")
    content = json.loads(attacked("--adversary", "rect", *options, "--json").stdout)
    clean, fooled = content["accuracy"]["rect"]
    assert fooled < clean - 50


def test_without_the_toolbox_its_attacks_say_what_to_install(attacked, no_art):
    result = attacked("--adversary", "rect", "--noise", "square")
    assert result.exit_code == 2
    assert "pip install '.[interop]' in a clone of nnlite" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--noise", "fgsm", "--steps", 5], "steps: noise r1 does not use it"),
        (["--noise", "pgd", "--seed", -1], "seed: expected an integer of at least 0, found -1"),
        (
            ["--noise", "r1", "--steps", 5],
            "steps: noise r1 does not use it, only pgd, pgd-l2, apgd, apgd-t, apgd-l2",
        ),
        (["--noise", "pgd", "--queries", 5], "queries: noise pgd does not use it, only square"),
        (["--noise", "lbfgs", "--restarts", 5], "restarts: noise lbfgs does not use it"),
        (["--noise", "r2", "--seed", 1], "seed: noise r2 does not use it, only pgd"),
        (["--noise", "lbfgs", "--no-clip"], "clip: noise lbfgs always keeps pixels within [0, 1]"),
        (["--noise", "pgd", "--steps", 0], "steps: expected an integer of at least 1, found 0"),
        (["--noise", "pgd", "--restarts", -1], "restarts: expected an integer of at least 1, found -1"),
        (["--noise", "pgd", "--stride", 0], "stride: expected a finite number above 0"),
        (["--noise", "pgd", "--phi", "-0.1"], "phi: expected"),
        (["--noise", "deepfool", "--steps", 0], "steps: expected an integer of at least 1, found 0"),
    ],
)
def test_what_an_attack_cannot_take_exits_2(attacked, options, words):
    result = attacked("--adversary", "rect", *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_at_phi_0_the_figure_is_the_clean_accuracy_by_hand(attacked, trained, digits):
    content = json.loads(attacked("--adversary", "rect", "--json").stdout)
    for run in trained[1]:
        arrays = safetensors.numpy.load_file(run.path / "weights.safetensors")
        hidden = np.maximum(digits.test.images / 16 @ arrays["dense0.W"] + arrays["dense0.b"], 0)
        predicted = (hidden @ arrays["dense1.W"] + arrays["dense1.b"]).argmax(axis=1)
        by_hand = 100 * (predicted == digits.test.labels).mean()
        assert content["accuracy"][run.name][0] == pytest.approx(by_hand, abs=1e-12)
        assert content["accuracy"][run.name][0] == run.results.test


def test_an_attack_on_itself_is_the_one_kept_with_the_run(attacked, trained):
    content = json.loads(attacked("--adversary", "rect", "--json").stdout)
    assert tuple(content["accuracy"]["rect"]) == trained[1][0].results.self_attack


def test_the_table_goes_to_stdout_and_the_notes_to_stderr(attacked, trained):
    result = attacked("--adversary", "rect")
    assert result.exit_code == 0
    title, *rows = [line for line in result.stdout.splitlines() if line.strip()]
    assert title == "rect crafts R1 noise on 500 test images of digits, not clipped"
    assert "phi 0.005" in rows[0]
    cells = {line.split()[0]: line.split()[1:] for line in rows}
    for run in trained[1]:
        assert cells[run.name][0] == f"{run.results.test:.2f}"
        assert len(cells[run.name]) == 5
    assert "accuracy in %" in result.stderr
    zero_share = json.loads(attacked("--adversary", "rect", "--json").stdout)["zero_share"]
    assert ("exactly 0" in result.stderr) == (zero_share > 0)


def test_csv_holds_the_same_figures(attacked):
    rows = list(csv.DictReader(attacked("--adversary", "rect", "--csv").stdout.splitlines()))
    content = json.loads(attacked("--adversary", "rect", "--json").stdout)
    found = {(row["victim"], float(row["phi"])): float(row["accuracy"]) for row in rows}
    assert found == {
        (victim, phi): accuracy
        for victim, accuracies in content["accuracy"].items()
        for phi, accuracy in zip(content["phi"], accuracies, strict=True)
    }
    assert len(found) == len(rows)


def test_pictures_are_drawn(attacked, tmp_path):
    result = attacked("--adversary", "rect", "--plot", "new/curves.png", "--images", "digits.png", "--phi", "0,0.1")
    assert result.exit_code == 0
    for name in ("new/curves.png", "digits.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
        assert f"drew {name}" in result.stderr
        assert name not in result.stdout


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_save_keeps_the_images_with_all_that_made_them(attacked, trained, tmp_path, dtype):
    options = ("--noise", "pgd-l2", "--steps", 2, "--phi", "0,1", "--seed", 3, "--dtype", dtype, "--json")
    without = attacked("--adversary", "rect", *options)
    result = attacked("--adversary", "rect", *options, "--save", "new/file.safetensors")
    assert result.stdout == without.stdout
    size = {"float32": 0.3, "float64": 0.5}[dtype]
    assert f"keeps 500 images at 2 phi, {size} MB, in new/file.safetensors" in result.stderr
    assert (tmp_path / "new" / "file.safetensors").stat().st_size == pytest.approx(1e6 * size, abs=0.05e6)
    file = open_attack(tmp_path / "new" / "file.safetensors")
    record = file.record
    assert record.attack == "PGD noise, L2 norm, steps 2, restarts 1, stride 1.25, seed 3, clipped to [0, 1]"
    assert (record.norm, record.clip, record.phi, record.data) == ("l2", True, (0, 1), "digits")
    assert [net.name for net in (record.adversary, *record.victims)] == ["rect", "rect", "dgl1-lam0.01-phi0.1"]
    runs = {run.name: weights_of(run.net) for run in trained[1]}
    found = verify(file, load("digits").test, runs)
    assert found.failures == []
    for score in found.scores:
        percent = [100 * count / 500 for count in score.found]
        assert percent == json.loads(result.stdout)["accuracy"][score.run.name]


def test_save_replaces_no_file_and_says_so_before_the_attack(attacked, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("precious")
    monkeypatch.setattr("nnlite.evaluation.attacking.evaluate_attack", pytest.fail)
    result = attacked("--adversary", "rect", "--save", "file")
    assert result.exit_code == 2
    assert "file: there is such a file; choose another name\n" in result.stderr
    assert (tmp_path / "file").read_text() == "precious"


def test_an_interrupted_attack_leaves_no_file(attacked, tmp_path, monkeypatch):
    def stop(*args, keep, **options):
        keep(0, [np.zeros((5, 64), np.float32)] * 5)
        raise KeyboardInterrupt

    monkeypatch.setattr("nnlite.evaluation.attacking.evaluate_attack", stop)
    assert attacked("--adversary", "rect", "--save", "new/file").exit_code == 130
    assert not list((tmp_path / "new").iterdir())


def test_a_file_of_another_kind_exits_2_before_the_attack(attacked, tmp_path):
    result = attacked("--adversary", "nobody", "--save", "new/a.npz")  # before anything is read
    assert (result.exit_code, result.stdout) == (2, "")
    assert "an attack file is safetensors: expected a name that ends in .safetensors, found 'a.npz'" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("option", ["--plot", "--images"])
def test_a_picture_of_another_kind_exits_2_before_the_attack(attacked, tmp_path, option):
    result = attacked("--adversary", "rect", option, "picture.gif")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "picture.gif" in result.stderr
    assert not (tmp_path / "picture.gif").exists()


def test_a_picture_that_cannot_be_written_exits_2(attacked, tmp_path):
    (tmp_path / "file").write_text("")
    result = attacked("--adversary", "rect", "--plot", "file/curves.png")
    assert (result.exit_code, result.stdout) == (2, "")  # before the attack
    assert "cannot write file/curves.png" in result.stderr


@pytest.mark.parametrize("options", [["--adversary", "nope"], ["--adversary", "rect", "--victim", "nope"]])
def test_an_unknown_run_exits_2_and_lists_the_runs(attacked, options):
    result = attacked(*options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "found 'nope'; there are dgl1-lam0.01-phi0.1, rect" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--adversary"),
        (["--adversary", "rect", "--json", "--csv"], "--json and --csv"),
        (["--adversary", "rect", "--phi", ""], "phi: expected"),
        (["--adversary", "rect", "--phi", "0,-0.1"], "phi: expected"),
        (["--adversary", "rect", "--phi", "nan"], "--phi': expected a finite number"),
        (["--adversary", "rect", "--phi", "0,big"], "--phi"),
        (["--adversary", "rect", "--noise", "r3"], "--noise"),
        (["--adversary", "rect", "--dtype", "float16"], "--dtype"),
        (["--adversary", "rect", "--victim", "rect", "--victim", "rect"], "victim: expected"),
        (["--adversary", "rect", "--runs", "nowhere"], "nnlite train"),
    ],
)
def test_bad_input_exits_2_without_a_result(attacked, options, words):
    result = attacked(*options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr


def test_a_net_for_images_of_another_size_exits_2(attacked, tmp_path):
    rng = np.random.default_rng(0)
    large = check_samples(rng.random((20, 784)), np.arange(20) % 10)
    make_run(
        Settings(hidden=(8,), epochs=1),
        Dataset("large", large, large, large, (28, 28), 10),
        tmp_path / "runs",
        name="rect",
    )
    for options in (["--adversary", "runs/large/rect"], ["--adversary", "rect", "--victim", "runs/large/rect"]):
        result = attacked(*options)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "runs/large/rect belongs to the data large, found digits; choose others" in result.stderr


def test_a_damaged_run_exits_2_and_is_named(attacked, tmp_path):
    (tmp_path / "runs" / "digits" / "rect" / "weights.safetensors").write_bytes(b"x")
    result = attacked("--adversary", "rect")
    assert result.exit_code == 2
    assert "runs/digits/rect: the run folder is damaged" in result.stderr


def test_runs_may_lie_anywhere(nnlite, trained):
    folder, (rect, _) = trained
    by_name = nnlite("attack", "--adversary", "rect", "--runs", folder, "--json")
    by_path = nnlite("attack", "--adversary", rect.path, "--victim", rect.path, "--json")
    assert by_name.exit_code == by_path.exit_code == 0
    assert json.loads(by_path.stdout)["accuracy"]["rect"] == json.loads(by_name.stdout)["accuracy"]["rect"]
    assert load_run(rect.path).name == json.loads(by_path.stdout)["adversary"]
