"""How commands end: one line on stderr, an exit code of its own for each kind of error, a traceback with --debug only.

What the operating system has a part in, pipes and signals, is looked at from outside, in a process of its own.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
import pytest

from nnlite.cli.main import main
from nnlite.errors import DivergedError, NnliteError

NNLITE = [sys.executable, "-c", "from nnlite.cli.main import main; main()"]
BAD = [  # each command with one bad input of each kind: what click sees, and what nnlite does
    "--nothing",
    "tain",
    "train --lr much",
    "train --lr -1",
    "train --reg dgl1 --resume --overwrite",
    "attack",
    "attack --adversary nobody",
    "verify",
    "verify nothing.safetensors",
    "audit",
    "audit nobody",
    "certify",
    "certify nobody",
    "explore",
    "explore nobody",
    "explore nobody --out page.txt",
    "grid",
    "grid nothing.toml",
    "grid --lr 0.1 --seed x",
    "reproduce table9",
    "reproduce table1 --epochs 0",
    "predict",
    "predict nobody nothing.csv",
    "export",
    "export nobody --to onnx",
    "export nobody --to pickle",
    "export nobody --to card --phi 0.1",
    "runs --data letters",
    "data letters",
    "data --seed 1",
    "data --fetch letters",
    "gradcheck --hidden 0",
    "gradcheck --entries 5 --datagrad --run nobody",
    "bench step --lam -1",
    "bench attack --steps 0",
    "bench epoch --reg nothing",
    "bench stack --models 1",
    "bench cost --rounds 1",
    "bench checkpoint --images 0",
    "bench plot nothing.json --out picture.png",
    "bench plot nothing.json --out picture.doc",
]
KINDS = [  # an error, its exit code, and what its line says
    (NnliteError("lr: expected more"), 2, "Error: lr: expected more"),
    (OSError(errno.EMFILE, "Too many open files"), 2, "raise ulimit -n"),
    (NnliteError("a\nname\x1b[31m\u202e of\ta stranger"), 2, "Error: a name [31m of a stranger"),
    (DivergedError("epoch 1: no"), 1, "Error: epoch 1: no"),
    (click.UsageError("choose one"), 2, "Error: choose one. See nnlite runs --help"),
    (MemoryError("no 3 TiB"), 2, "Error: memory: no 3 TiB; take smaller"),
    (MemoryError(), 2, "Error: memory: there is not enough; take smaller"),
    (OSError(errno.ENOSPC, "No space left on device", "x.png"), 2, "refused (No space left on device: x.png); look"),
    (KeyboardInterrupt(), 130, "Interrupted."),
    (KeyboardInterrupt("Interrupted: the run is saved."), 130, "Interrupted: the run is saved."),
    (ZeroDivisionError("by 0"), 70, "Error: a bug in nnlite (ZeroDivisionError: by 0); call nnlite --debug"),
    (EOFError("short file"), 70, "Error: a bug in nnlite (EOFError: short file)"),  # click takes it for Ctrl-C
]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start nnlite in an empty folder, without a cache, and end it with the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    monkeypatch.delenv("NNLITE_DATA", raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # the end of a buffered output is the hard part
    started = []

    def start(arguments, stdout=subprocess.PIPE, ctrl_c=signal.SIG_DFL):
        process = subprocess.Popen(
            [*NNLITE, *arguments.split()],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),  # whatever the tests themselves were started with
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def broken(nnlite, monkeypatch):
    """Call `nnlite runs` with an error in it."""

    def call(error, *before):
        def fail(*_):
            raise error

        monkeypatch.setattr("nnlite.cli.runs.list_records", fail)
        return nnlite(*before, "runs")

    return call


# --- one line and an exit code


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_ends_with_one_line_and_2(nnlite, tmp_path, arguments):
    result = nnlite(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    *progress, line = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert all(text.startswith("the paper's Rect") for text in progress)
    assert not [path for path in tmp_path.iterdir() if path.name not in ("runs", "reproduction")]


ENORMOUS = 10**18
TOO_LARGE = [
    *(f"{command} --hidden {ENORMOUS}" for command in ("train", "grid", "reproduce table1")),
    *(f"gradcheck {option} {ENORMOUS}" for option in ("--hidden", "--features", "--classes", "--batch-size")),
    f"gradcheck --datagrad --hidden {ENORMOUS}",
    *(f"bench {name} --hidden {ENORMOUS}" for name in ("step", "attack", "epoch", "stack", "cost", "checkpoint")),
    *(f"bench {name} --images {ENORMOUS}" for name in ("epoch", "cost", "checkpoint")),
    f"bench step --batch-size {ENORMOUS}",
    f"bench attack --rows {ENORMOUS}",
    f"bench stack --models {ENORMOUS}",
]


@pytest.mark.parametrize("arguments", TOO_LARGE)
def test_what_does_not_fit_into_memory_is_told_before_anything_is_made(nnlite, arguments):
    result = nnlite(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    *progress, line = result.stderr.splitlines()
    assert line.startswith(("Error: memory: ", "Error: hidden: the checkpoint of this net has"))
    assert all(text.startswith("the paper's Rect") for text in progress)


@pytest.mark.parametrize("arguments", ["train --lr much", "attack --adversary nobody", "bench plot x.json --out x.png"])
def test_bad_input_looks_the_same_from_outside(start, arguments):
    process = start(arguments)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (2, "")
    assert re.fullmatch(r"Error: .*\n", stderr)


DRAWING = [
    "attack --adversary rect --plot",
    "attack --adversary rect --images",
    "audit rect --plot",
    "certify rect --plot",
    "gradcheck --datagrad --run rect --plot",
    "bench step --plot",
    "bench plot kept.json --out",
]


@pytest.mark.parametrize("arguments", DRAWING)
@pytest.mark.parametrize("picture", ["curve.gif", "file/curve.png", "folder.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_first_of_all(nnlite, tmp_path, arguments, picture):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    result = nnlite(*arguments.split(), picture)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: picture: ")  # there is no run yet, and no report


def test_every_command_is_among_those_with_bad_input():
    commands = {
        f"{name} {below}".strip()
        for name, command in main.commands.items()
        for below in getattr(command, "commands", [""])
    }
    assert {name for name in commands if not any(f"{bad} ".startswith(f"{name} ") for bad in BAD)} == set()


@pytest.mark.parametrize(("error", "code", "words"), KINDS, ids=lambda value: type(value).__name__)
def test_each_kind_of_error_has_its_exit_code_and_its_line(broken, error, code, words):
    result = broken(error)
    assert result.exit_code == code
    assert result.stdout == ""
    (line,) = filter(None, result.stderr.splitlines())  # click ends the line of ^C
    assert words in line
    assert line.isprintable()


@pytest.mark.parametrize("error", [NnliteError("lr: expected more"), ZeroDivisionError("by 0"), MemoryError()])
def test_debug_shows_the_traceback_before_the_same_line(broken, error):
    plain, debug = broken(error), broken(error, "--debug")
    assert debug.exit_code == plain.exit_code
    assert "Traceback" not in plain.stderr
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert "in fail\n" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


def test_debug_leaves_alone_what_is_no_error(nnlite):
    for arguments in (["--help"], ["runs", "--help"], ["data"]):
        assert nnlite("--debug", *arguments).output == nnlite(*arguments).output


def test_without_a_command_the_help_is_shown_as_it_is(nnlite):
    result = nnlite()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == nnlite("--help").stdout


def test_the_docs_have_these_exit_codes():
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text("utf-8")
    table = page.partition("## Exit codes")[2].partition("\n## ")[0]
    assert set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == {0} | {code for _, code, _ in KINDS} | {
        141
    }


# --- output that goes nowhere

OUTPUT = ["--help", "grid --help", "data", "data --json"]  # by click, by rich, and by print_json


@pytest.mark.parametrize("arguments", OUTPUT)
def test_a_reader_that_went_away_is_no_error(start, arguments):
    process = start(arguments)
    process.stdout.close()  # long before the process has imported all it needs
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_csv_waits_for_no_reader_either(start, nnlite):
    assert nnlite("train", "--hidden", 4, "--epochs", 1, "--name", "rect").exit_code == 0
    process = start("attack --adversary rect --csv")
    process.stdout.close()
    assert [line for line in process.stderr if not line.startswith("Note: ")] == []
    assert process.wait() == 141


def test_errors_that_nobody_reads_keep_their_exit_code(start):
    process = start("train --lr much")
    process.stderr.close()
    assert process.wait() == 2


@pytest.mark.once
@pytest.mark.parametrize("arguments", OUTPUT)
def test_a_full_disk_under_stdout_is_told(start, arguments):
    with open("/dev/full", "w") as full:
        process = start(arguments, stdout=full)
        stderr = process.stderr.read()
    assert process.wait() == 2
    assert re.fullmatch(r"Error: the system refused \(No space left on device\).*\n", stderr)


@pytest.mark.once
@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict", "cp1252:strict"])
@pytest.mark.parametrize("name", ["\u2603ü", os.fsdecode(b"\xff")])
def test_what_stdout_cannot_encode_is_spelled_out(start, tmp_path, monkeypatch, encoding, name):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    for arguments in (f"train --hidden 4 --epochs 1 --runs {name}", f"runs --runs {name}"):  # by click, by rich
        process = start(arguments)
        process.stdout.buffer.read()
        assert process.wait() == 0, process.stderr.read()
    assert (tmp_path / name / "digits" / "rect-hidden4-epochs1").is_dir()


@pytest.mark.parametrize("arguments", ["--help", "data"])
def test_a_closed_stdout_is_no_error(tmp_path, arguments):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *NNLITE, *arguments.split()]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.once
@pytest.mark.parametrize("command", ["runs", "attack --adversary mine", "runs --json"])
def test_a_folder_that_is_no_run_is_told_on_stderr_and_no_error(start, nnlite, tmp_path, command):
    nnlite("train", "--hidden", 4, "--epochs", 1, "--name", "mine")
    (tmp_path / "runs" / "digits" / "predict").mkdir()
    process = start(command)
    stdout, stderr = process.communicate()
    assert process.returncode == 0
    assert "mine" in stdout
    assert [line.partition(", it holds")[0] for line in stderr.splitlines() if "skipped" in line] == [
        "skipped: runs/digits/predict: no run of nnlite"
    ]


# --- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_training_keeps_what_it_has(start, tmp_path, number):
    process = start("train --hidden 4 --epochs 100000 --name rect")
    while "epoch 2/" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    assert "Interrupted after epoch" in process.stderr.read().splitlines()[-1]
    assert process.wait() == 130
    assert json.loads((tmp_path / "runs/digits/rect/results.json").read_text())["status"] == "interrupted"


@pytest.mark.once
def test_a_job_in_the_background_ignores_ctrl_c_and_hears_sigterm(start):
    process = start("gradcheck --entries 1000000", ctrl_c=signal.SIG_IGN)
    wait_for(lambda: signals(process.pid, "SigCgt") & bit(signal.SIGTERM))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.communicate() == ("", "\nInterrupted.\n")
    assert process.returncode == 130


@pytest.mark.once
def test_sigterm_ends_the_processes_of_a_grid_too(start):
    process = start("grid --hidden 4 --epochs 100000 --seed 0,1 --jobs 2")
    below = psutil.Process(process.pid).children
    # two workers and what tracks their memory, all of them beyond their start
    wait_for(lambda: len([child for child in below() if signals(child.pid, "SigIgn") & bit(signal.SIGINT)]) == 3)
    children = below()
    process.send_signal(signal.SIGTERM)
    stderr = process.stderr.read()
    assert process.wait() == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "Interrupted: finished runs are kept; the same command continues."
    assert psutil.wait_procs(children, timeout=10)[1] == []


def signals(pid, what):
    """Return a set of signals of a process, as Linux tells: those that it catches, SigCgt, or ignores, SigIgn."""
    return int(re.search(rf"{what}:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1], 16)


def bit(number):
    """Return where a signal stands in such a set."""
    return 1 << (number - 1)


def wait_for(condition):
    """Wait until it holds, a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


CALL = [sys.executable, "-c", "from nnlite.cli.start import start; start()"]


@pytest.mark.parametrize("stderr", ["a full disk", "a dead pipe"])
def test_a_stderr_that_cannot_be_written_ends_no_training(tmp_path, stderr):
    if stderr == "a full disk":
        number = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, number = os.pipe()
        os.close(reader)
    train = [*CALL, "train", "--hidden", "4", "--epochs", "3"]
    ended = subprocess.run(train, cwd=tmp_path, stdout=subprocess.PIPE, stderr=number, text=True)
    os.close(number)
    assert ended.returncode == 0
    assert "best epoch" in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.05, 0.2])
@pytest.mark.parametrize("began", ["start()", "exec(code)"], ids=["nnlite", "python -m nnlite"])
def test_a_signal_while_the_commands_are_imported_ends_quietly(tmp_path, number, seconds, began):
    slow = "import nnlite.__main__ as module, sys, time; from nnlite.cli.start import start; "
    slow += "code = open(module.__file__).read(); print(flush=True); sys.meta_path.insert(0, type('Slow', (), {"
    slow += f"'find_spec': lambda *_: time.sleep(0.05)}})); {began}"
    with subprocess.Popen(
        [sys.executable, "-c", slow, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background it is ignored
    ) as process:
        assert process.stdout.readline() == b"\n"
        time.sleep(seconds)
        process.send_signal(number)
        said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, (b"", b""))
