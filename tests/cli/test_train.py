"""`nnlite train`: what it prints where, its exit codes, and that bad input leaves nothing behind."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.evaluation import threads
from nnlite.evaluation.accuracy import accuracy
from nnlite.methods import METHODS
from nnlite.training import loop as training
from nnlite.training import runs
from nnlite.training.environment import environment
from nnlite.training.run_folder import load_run

TINY = ("train", "--hidden", "16", "--epochs", "3")
RECT = "rect-hidden16-epochs3"


def one_line(text):
    return text.endswith("\n") and text.count("\n") == 1


def test_a_run_is_trained_and_kept(nnlite, tmp_path):
    result = nnlite(*TINY)
    assert result.exit_code == 0
    run = load_run(tmp_path / "runs" / "digits" / RECT)
    assert run.settings.hidden == (16,)
    assert run.settings.epochs == len(run.history) == 3
    assert run.results.test == accuracy(run.net, load("digits").test)


def test_the_result_goes_to_stdout_and_the_progress_to_stderr(nnlite, tmp_path):
    result = nnlite(*TINY)
    results = load_run(tmp_path / "runs" / "digits" / RECT).results
    assert one_line(result.stdout)
    assert result.stdout.startswith(f"runs/digits/{RECT}: best epoch 3 of 3")
    assert f"test {results.test:.2f} %" in result.stdout
    assert f"{results.self_attack[-1]:.2f} at 0.1" in result.stdout
    first, *epochs = result.stderr.splitlines()
    assert "Rect" in first
    shown = [
        re.fullmatch(r" *(\d+) %.*  epoch (\d/3)  loss \d\.\d{4}  validation \d+\.\d\d %", line) for line in epochs
    ]
    assert [line.groups() for line in shown] == [("33", "1/3"), ("66", "2/3"), ("100", "3/3")]


def test_the_mix_of_lambda_and_phi_is_said(nnlite, tmp_path):
    result = nnlite(*TINY, "--reg", "dgl1", "--lam", 0.01, "--phi", 0.1)
    assert result.exit_code == 0
    assert "0.9 clean + 0.1 adversarial" in result.stderr
    assert "Warning" not in result.stderr
    assert load_run(tmp_path / "runs" / "digits" / "dgl1-lam0.01-phi0.1-hidden16-epochs3").settings.lam == 0.01


def test_a_negative_clean_weight_warns(nnlite):
    result = nnlite(*TINY, "--reg", "dgl1", "--lam", 0.2, "--phi", 0.1)
    assert result.exit_code == 0
    assert "Warning: the clean gradient has the negative weight -1" in result.stderr


@pytest.mark.parametrize(
    ("options", "run", "said"),
    [
        (("goodfellow", "--phi", 0.1), "goodfellow-phi0.1-alpha0.5", "0.5 clean + 0.5 adversarial"),
        (("goodfellow", "--phi", 0.1, "--alpha", 0.9), "goodfellow-phi0.1-alpha0.9", "0.9 clean + 0.1 adversarial"),
        (("lyu", "--phi", 0.1, "--p", "inf"), "lyu-phi0.1-pinf", "Lyu et al. 2015"),
        (("miyato", "--lam", 1, "--phi", 0.5), "miyato-lam1-phi0.5", "Miyato et al. 2015"),
        (("datagrad", "--term", "l1,0.01,0.1"), "datagrad-l1-0.01-0.1", "0.9 clean + 0.1 adversarial"),
        (("gu-rigazio", "--lam", 0.001), "gu-rigazio-lam0.001", "Gu and Rigazio 2014"),
        (("pgd", "--phi", 0.1), "pgd-phi0.1-steps10", "Madry et al. 2018"),
        (("trades", "--lam", 6, "--phi", 0.1, "--steps", 2), "trades-lam6-phi0.1-steps2", "1 clean + 6 adversarial"),
        (("dgl1", "--lam", 0.01, "--gradient", "exact"), "dgl1-exact-lam0.01", "0.01 exact penalty gradient"),
    ],
)
def test_works_of_others_and_the_exact_gradient_are_trained_by_name(nnlite, tmp_path, options, run, said):
    result = nnlite(*TINY, "--reg", *options)
    assert result.exit_code == 0
    assert said in result.stderr
    settings = load_run(tmp_path / "runs" / "digits" / f"{run}-hidden16-epochs3").settings
    assert (settings.reg, settings.run_name) == (options[0], f"{run}-hidden16-epochs3")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("huang", "--phi", 0.1, "--alpha", 0.5), "alpha: method huang does not use it"),
        (("nokland", "--phi", 0.1, "--p", "1"), "p: method nokland does not use it"),
        (("trades", "--phi", 0.1), "lam: method trades needs it; give for example --lam 0.01 --phi 0.1 --steps 10"),
        (("miyato", "--lam", 1, "--phi", 0.1, "--steps", 5), "steps: method miyato does not use it"),
        (("goodfellow",), "phi: method goodfellow needs it; give for example --phi 0.1 --alpha 0.5"),
        (("lyu", "--phi", 0.1), "p: method lyu needs it"),
        (("datagrad",), "term: method datagrad needs it; give for example --term l1,0.01,0.1"),
        (("dgl1", "--term", "l1,0.01,0.1"), "lam: method dgl1 needs it"),
        (("none", "--term", "l1,0.01,0.1"), "term: method none does not use it"),
        (("dgl1", "--lam", 0.01, "--phi", 0.1, "--gradient", "exact"), "phi: the exact gradient takes no step"),
        (("goodfellow", "--phi", 0.1, "--gradient", "exact"), "gradient: method goodfellow has no penalty"),
    ],
)
def test_an_option_of_another_method_is_refused(nnlite, tmp_path, options, named):
    result = nnlite(*TINY, "--reg", *options)
    assert result.exit_code == 2
    assert one_line(result.stderr)
    assert named in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_training_ends_with_warnings_about_its_figures(nnlite, monkeypatch):
    falling, real = iter([71.0, 60.0, 41.0]), runs.evaluate
    monkeypatch.setattr(training, "_validate", lambda *args: np.array([next(falling)]))
    leaking = {"test": 70.0, "self_attack": (70.0, 60.0, 50.0, 80.0, 97.0)}
    monkeypatch.setattr(runs, "evaluate", lambda *args: replace(real(*args), **leaking))
    result = nnlite(*TINY)
    assert result.exit_code == 0
    assert one_line(result.stdout)
    leak, fall = result.stderr.splitlines()[-2:]
    assert leak.startswith("Warning: label leaking (Kurakin et al. 2017): test accuracy rises from 70.00 % to 97.00 %")
    assert leak.endswith(f"use nnlite audit runs/digits/{RECT}")
    assert fall.startswith("Warning: validation accuracy fell from 71.00 % in epoch 1 to 41.00 % in the last epoch, 3;")


def test_the_help_lists_every_method_with_what_it_takes(nnlite):
    words = " ".join(nnlite("train", "--help").stdout.split())
    for name, method in METHODS.items():
        assert f" {' '.join([name, *method.takes])} {method.source}" in words


def test_every_option_reaches_the_settings(nnlite, tmp_path):
    options = ("--lr", 0.2, "--epochs", 2, "--batch-size", 50, "--seed", 5, "--hidden", "8,4")
    result = nnlite("train", "--reg", "l2", "--lam", 0.1, *options, "--name", "mine", "--runs", "elsewhere")
    assert result.exit_code == 0
    assert load_run(tmp_path / "elsewhere" / "digits" / "mine").settings == training.Settings(
        reg="l2", lam=0.1, lr=0.2, epochs=2, batch_size=50, seed=5, hidden=(8, 4)
    )


def test_no_hidden_layer(nnlite, tmp_path):
    assert nnlite("train", "--hidden", "", "--epochs", 1).exit_code == 0
    assert load_run(tmp_path / "runs" / "digits" / "rect-hiddennone-epochs1").net.sizes == (64, 10)


def test_an_existing_run_is_not_touched(nnlite, tmp_path):
    nnlite(*TINY)
    before = [path.read_bytes() for path in (tmp_path / "runs" / "digits" / RECT).iterdir()]
    result = nnlite(*TINY, "--seed", 1, "--name", RECT)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{RECT} exists" in result.stderr
    assert "--overwrite" in result.stderr
    assert [path.read_bytes() for path in (tmp_path / "runs" / "digits" / RECT).iterdir()] == before
    assert nnlite(*TINY, "--seed", 1, "--name", RECT, "--overwrite").exit_code == 0
    assert load_run(tmp_path / "runs" / "digits" / RECT).settings.seed == 1


def test_other_settings_make_another_run(nnlite, tmp_path):
    for more in ((), ("--seed", 1), ("--lr", 0.2), ("--batch-size", 50, "--reg", "l1", "--lam", 0.1)):
        assert nnlite(*TINY, *more).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "runs" / "digits").iterdir()) == [
        "l1-lam0.1-hidden16-epochs3-batch50",
        "rect-hidden16-epochs3",
        "rect-hidden16-epochs3-seed1",
        "rect-hidden16-lr0.2-epochs3",
    ]


def test_a_run_that_an_older_version_named_by_its_method_alone_is_found(nnlite, tmp_path):
    nnlite(*TINY, "--name", "rect")
    result = nnlite(*TINY)
    assert (result.exit_code, "runs/digits/rect exists" in result.stderr) == (2, True)
    assert "runs/digits/rect is finished: there is nothing to do" in nnlite(*TINY, "--resume").stderr
    assert nnlite(*TINY, "--seed", 1).exit_code == 0  # that run is of other settings
    assert sorted(path.name for path in (tmp_path / "runs" / "digits").iterdir()) == ["rect", f"{RECT}-seed1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--reg", "dgl3"], "--reg"),
        (["--reg", "dgl1"], "lam: method dgl1 needs it"),
        (["--reg", "dgl1", "--lam", "0.01"], "phi: method dgl1 needs it"),
        (["--reg", "dgl1", "--lam", "0.01", "--phi", "0"], "phi: expected"),
        (["--reg", "dgl1", "--lam", "0.01", "--phi", "1e-30"], "phi: expected more than 6e-08"),
        (["--reg", "dgl1", "--lam", "1e38", "--phi", "0.1"], "lam: expected lambda/phi"),
        (["--reg", "dgl1", "--lam", "nan", "--phi", "0.1"], "lam: expected"),
        (["--reg", "dgl1", "--lam", "-1", "--phi", "0.1"], "lam: expected"),
        (["--reg", "l1", "--lam", "0.1", "--phi", "0.1"], "phi: method l1 does not use it"),
        (["--lam", "0.1"], "lam: method none does not use it"),
        (["--reg", "l1", "--lam", "much"], "--lam"),
        (["--data", "cifar"], "data: expected one of digits, mnist, fashion-mnist, kmnist, or the path of"),
        (["--device", "tpu"], "--device"),
        (["--hidden", "16,x"], "--hidden"),
        (["--hidden", "1.5"], "--hidden"),
        (["--hidden", "16,0"], "hidden: expected"),
        (["--hidden", "-3"], "hidden: expected"),
        (["--lr", "0"], "lr: expected"),
        (["--lr", "inf"], "lr: expected"),
        (["--epochs", "0"], "epochs: expected"),
        (["--epochs", "2.5"], "--epochs"),
        (["--batch-size", "0"], "batch_size: expected"),
        (["--seed", "-1"], "seed: expected"),
        (["--name", "a/b"], "name: expected"),
        (["--name", ".hidden"], "name: expected"),
        (["--name", ""], "name: expected"),
        (["--name", "x" * 300], "name: expected"),
        (["--momentum", "0.9"], "--momentum"),
        (["extra"], "extra"),
    ],
)
def test_bad_input_exits_2_and_writes_nothing(nnlite, tmp_path, options, words):
    result = nnlite("train", "--epochs", 1, *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_runs_folder_that_cannot_be_written_exits_2(nnlite, tmp_path):
    (tmp_path / "runs").write_text("a file")
    result = nnlite(*TINY)
    assert result.exit_code == 2
    assert "runs: cannot write to runs/digits" in result.stderr
    assert "epoch" not in result.stderr  # said before any training


def test_without_cupy_the_gpu_is_refused_in_one_line_that_says_what_to_install(nnlite, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = nnlite(*TINY, "--device", "gpu")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "pip install" in line
    assert result.stderr.endswith(line + "\n")


# --- trainings that end early


def interrupt_in_step(number, monkeypatch):
    """Raise KeyboardInterrupt, as Ctrl-C does, in the given training step; three steps make an epoch of 500."""
    steps = []

    def step(*args, **_):
        steps.append(args)
        if len(steps) == number:
            raise KeyboardInterrupt
        return np.zeros(1, np.float32)

    monkeypatch.setattr(training, "train_step", step)


def test_ctrl_c_keeps_the_best_net_so_far(nnlite, tmp_path, monkeypatch):
    interrupt_in_step(8, monkeypatch)
    result = nnlite(*TINY, "--batch-size", 500, "--name", RECT)
    assert result.exit_code == 130
    run = load_run(tmp_path / "runs" / "digits" / RECT)
    assert run.results.status == "interrupted"
    assert [epoch.epoch for epoch in run.history] == [1, 2]
    assert one_line(result.stdout)
    assert "Traceback" not in result.stderr
    assert [line for line in result.stderr.splitlines() if "nterrupt" in line] == [
        "Interrupted after epoch 2; the best net so far is saved; the same command with --resume goes on."
    ]


def test_a_stopped_training_is_listed_and_goes_on(nnlite, tmp_path, monkeypatch):
    whole = nnlite(*TINY, "--runs", "whole")
    with monkeypatch.context() as patch:
        real, steps = training.train_step, []

        def step(*args, **_):
            steps.append(args)
            if len(steps) == 25:  # in the third epoch, each of which has eleven
                raise KeyboardInterrupt
            return real(*args)

        patch.setattr(training, "train_step", step)
        assert nnlite(*TINY).exit_code == 130
    listed = nnlite("runs")
    said = f"1 training is not finished: digits/{RECT} after epoch 2 of 3; nnlite train --resume goes on\n"
    assert listed.stderr == said
    assert "interrupted" in listed.stdout
    refused = nnlite(*TINY)
    assert refused.exit_code == 2
    said = f"Error: run: runs/digits/{RECT} was stopped; go on with --resume, or choose another --name "
    assert refused.stderr.endswith(f"{said}(--overwrite drops what is there)\n")
    result = nnlite(*TINY, "--resume")
    assert result.exit_code == 0
    assert result.stdout == whole.stdout.replace("whole", "runs")
    assert [line.split("  loss")[0] for line in result.stderr.splitlines()[1:]] == [
        "going on after epoch 2",
        "100 %  epoch 3/3",
    ]
    one, other = (tmp_path / runs / "digits" / RECT / "weights.safetensors" for runs in ("whole", "runs"))
    assert one.read_bytes() == other.read_bytes()
    again = nnlite(*TINY, "--resume")
    assert (again.exit_code, again.stdout) == (0, result.stdout)
    assert again.stderr.splitlines()[1:] == [f"runs/digits/{RECT} is finished: there is nothing to do"]
    assert nnlite("runs").stderr == ""


def test_the_time_that_is_left_is_reckoned_from_the_epochs_of_this_call(nnlite, tmp_path, monkeypatch):
    interrupt_in_step(7, monkeypatch)  # the first of the third epoch
    nnlite(*TINY, "--epochs", 5, "--batch-size", 500)
    now = 0

    def epoch_of_a_minute(*args):
        nonlocal now
        now += 60
        return real(*args)

    real = training._run_epoch
    monkeypatch.setattr(training, "_run_epoch", epoch_of_a_minute)
    monkeypatch.setattr("nnlite.cli.progress.time", SimpleNamespace(monotonic=lambda: now))
    result = nnlite(*TINY, "--epochs", 5, "--batch-size", 500, "--resume")
    lines = [line.split("  loss")[0] for line in result.stderr.splitlines()[2:]]
    assert lines == [" 60 %  epoch 3/5", " 80 %, 0:01:00 left  epoch 4/5", "100 %  epoch 5/5"]


def test_a_damaged_checkpoint_does_not_hide_the_runs(nnlite, tmp_path):
    nnlite(*TINY)
    (tmp_path / "runs" / "digits" / ".other.checkpoint").write_bytes(b"")
    result = nnlite("runs")
    assert result.exit_code == 0
    assert RECT in result.stdout
    assert one_line(result.stderr)
    assert result.stderr.startswith("Warning: runs/digits/.other.checkpoint: the checkpoint is damaged")


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--resume", "--overwrite"), "choose one"), (("--checkpoint-every", -1), "--checkpoint-every")],
)
def test_wrong_options_of_resume_are_refused(nnlite, tmp_path, options, words):
    result = nnlite(*TINY, *options)
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert words in result.stderr


def test_without_checkpoints_nothing_is_promised(nnlite, tmp_path, monkeypatch):
    interrupt_in_step(8, monkeypatch)
    result = nnlite(*TINY, "--batch-size", 500, "--checkpoint-every", 0, "--name", RECT)
    assert result.stderr.endswith("Interrupted after epoch 2; the best net so far is saved.\n")
    assert [path.name for path in (tmp_path / "runs" / "digits").iterdir()] == [RECT]


def test_ctrl_c_in_the_first_epoch_saves_nothing_and_says_so(nnlite, tmp_path, monkeypatch):
    interrupt_in_step(2, monkeypatch)
    result = nnlite(*TINY, "--batch-size", 500)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.endswith("Interrupted within the first epoch: nothing was saved.\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_divergence_in_the_first_epoch_exits_1_with_advice(nnlite, tmp_path):
    result = nnlite("train", "--hidden", "16,16,16", "--lr", "1e6", "--epochs", 3)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Error: epoch 1: the loss is no longer finite" in result.stderr
    assert "--lr 100000" in result.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_later_divergence_exits_1_and_keeps_the_best_net(nnlite, tmp_path):
    # the penalty's step multiplies the weights by 1 - 2 * 200 / 100
    result = nnlite("train", "--hidden", 16, "--reg", "l2", "--lam", 200, "--lr", 1)
    run = load_run(tmp_path / "runs" / "digits" / "l2-lam200-hidden16-lr1")
    assert result.exit_code == 1
    assert run.results.status == "diverged"
    assert f"Error: epoch {len(run.history) + 1}: the loss is no longer finite" in result.stderr
    assert "--lr 0.1" in result.stderr
    assert one_line(result.stdout)


def test_a_training_that_led_nowhere_exits_1_keeps_its_net_and_says_what_to_try(nnlite, tmp_path):
    result = nnlite("train", "--hidden", 64, "--lr", 1000, "--epochs", 3)
    run = load_run(tmp_path / "runs" / "digits" / "rect-hidden64-lr1000-epochs3")
    assert (result.exit_code, run.results.status, len(run.history)) == (1, "failed", 3)
    assert one_line(result.stdout)
    assert result.stderr.splitlines()[-1].startswith("Error: the ")
    assert "the net is saved. Try a smaller learning rate, such as --lr 100; one that learns" in result.stderr
    assert "failed" in nnlite("runs").stdout
    assert (
        "is finished: there is nothing to do"
        in nnlite("train", "--hidden", 64, "--lr", 1000, "--epochs", 3, "--resume").stderr
    )


def test_a_training_that_comes_to_rest_says_so(nnlite, tmp_path):
    result = nnlite("train", "--hidden", 16, "--lr", 1, "--patience", 2)
    run = load_run(tmp_path / "runs" / "digits" / "rect-hidden16-lr1-patience2")
    assert (result.exit_code, run.results.status) == (0, "finished")
    assert len(run.history) < 60
    assert "stopped: 2 epochs without a better validation accuracy\n" in result.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_has_one_thread_or_as_many_as_asked_for(nnlite, tmp_path, threads):
    more = ["--threads", threads] if threads > 1 else []
    with threadpoolctl.threadpool_limits(3):
        assert nnlite(*TINY, *more).exit_code == 0
        assert environment()["BLAS threads"] == "3"  # what the caller had is not touched
    content = json.loads((tmp_path / "runs" / "digits" / RECT / "settings.json").read_text("utf-8"))
    assert content["versions"]["BLAS threads"] == str(threads)


@pytest.mark.parametrize(
    ("command", "work"),
    [
        ("attack --adversary mine", "attack.attack_nets"),
        ("audit mine", "audit.audit_net"),
        ("certify mine", "certify.data_of"),
    ],
)
def test_attacks_audits_and_certificates_take_threads_for_blocks_of_images(nnlite, monkeypatch, command, work):
    nnlite(*TINY, "--name", "mine")
    seen = []

    def look(*args, **kwargs):
        seen.append((environment()["BLAS threads"], *threads._limit))
        raise NnliteError("enough")

    monkeypatch.setattr(f"nnlite.cli.{work}", look)
    with threadpoolctl.threadpool_limits(3):
        for more in ([], ["--threads", 1]):
            nnlite(*command.split(), *more)
    assert seen == [("1", threads.processors()), ("1", 1)]
