"""tests/tools/gpu.py, which measures all there is on a GPU; here on the CPU, and with parts that go wrong."""

import json
import sys
import time

import click
import gpu
import psutil
import pytest

from nnlite.cli.main import main as cli
from nnlite.paper.plan import Plan
from nnlite.paper.reproduction import Reproduction
from nnlite.paper.tables import MODELS
from nnlite.paper.targets import TARGETS, attacks_for

pytestmark = pytest.mark.once

HERE = {"cpu": "a CPU", "gpu": "a GPU", "versions": {"nnlite": "1"}}


def part(name, code, *more, seconds=60, words=gpu.last_line):
    return gpu.Part(name, seconds, ((sys.executable, "-c", code, *more),), words)


def test_a_part_that_fails_is_named_and_the_others_go_on(tmp_path, capsys):
    wanted = [
        part("wrong", "raise SystemExit('no such | kernel')"),
        part("slow", "import time; print('begun', flush=True); time.sleep(60)", seconds=1),
        part("strange", "print('no JSON')", words=gpu.race_words),
        part("well", "print('3 passed')"),
    ]
    assert not gpu.measure(wanted, HERE, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert found["machine"] == HERE
    problems = {one["part"]: one["problem"] for one in found["parts"]}
    assert problems["wrong"] == "exit code 1: no such | kernel"
    assert problems["slow"].startswith("ended when its budget was used up")
    assert "JSONDecodeError" in problems["strange"]
    assert problems["well"] == ""
    head, _, _, _, *rows = (tmp_path / "report.md").read_text("utf-8").splitlines()
    assert head == "a GPU; nnlite 1"
    assert all(row.count("|") == 5 for row in rows)
    assert [row.split("|")[1].strip() for row in rows if "**failed:**" in row] == ["wrong", "slow", "strange"]
    assert "| 3 passed |" in rows[-1]


def test_all_parts_well_is_said_by_the_exit_code(tmp_path):
    assert gpu.measure([part("well", "print('3 passed')")], HERE, tmp_path)


def is_alive(number):
    """Return whether a process runs; one that has ended, and whose parent has not looked yet, does not."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_is_ended_takes_its_own_processes_with_it(tmp_path):
    code = "import subprocess, sys, pathlib, time; child = subprocess.Popen(['sleep', '600']); "
    code += "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(600)"
    found = gpu.carry_out(part("slow", code, str(tmp_path / "pid"), seconds=5))
    assert found["problem"]
    number, until = int((tmp_path / "pid").read_text()), time.monotonic() + 30
    while is_alive(number) and time.monotonic() < until:  # it was told to end, which takes the system a moment
        time.sleep(0.01)
    assert not is_alive(number)


def test_epochs_are_doubled_while_there_is_time(monkeypatch):
    clock, given = [0.0], []

    def run(command, seconds):
        given.append((command, seconds))
        clock[0] += 1 + int(command[1])  # one second of start-up
        return "", ""

    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu, "run", run)
    found = gpu.carry_out(gpu.Part("models", 30, (("train", gpu.EPOCHS),), gpu.models_words))
    assert given == [(["train", "1"], 30), (["train", "2"], 28), (["train", "4"], 25), (["train", "8"], 20)]  # then 11
    assert found["found"] == "1 epoch in 2.0 s, 2 epochs in 3.0 s, 4 epochs in 5.0 s, 8 epochs in 9.0 s"


@pytest.mark.parametrize("quick", [False, True])
def test_each_command_is_one_that_nnlite_takes(quick):
    wanted = gpu.parts("gpu", quick)
    assert sum(one.seconds for one in wanted) < 8 * 60
    for command in (command for one in wanted for command in one.commands if command[: len(gpu.NNLITE)] == gpu.NNLITE):
        name, *arguments = (word.replace(gpu.EPOCHS, "1") for word in command[len(gpu.NNLITE) :])
        taken = cli.commands[name]
        if name == "bench":
            taken = taken.commands[arguments.pop(0)]
        assert "gpu" in arguments
        # raises for what it does not take, and empties them; click remembers -h as an option only below its parent
        taken.make_context(name, arguments, parent=click.Context(cli, info_name="nnlite", **cli.context_settings))


def test_the_models_are_all_46_of_the_paper(tmp_path):
    needed = {model for target in TARGETS for model in attacks_for(target, MODELS)[1]}
    assert len(Reproduction(tmp_path, Plan()).jobs(needed)) == len(MODELS) == 46


def test_parts_run_on_the_cpu(tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--quick", "step", "certificates"], tmp_path / "gpu") == 0
    step, certificates = json.loads((tmp_path / "gpu/report.json").read_text("utf-8"))["parts"]
    assert "1.00 x products" in step["found"]
    assert certificates["found"].startswith("5 images in ")
    assert len(certificates["seconds"]) == 2
    assert "report.md" in capsys.readouterr().out


def test_without_a_gpu_it_says_so_in_a_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu.main([], tmp_path / "gpu") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "gpu").exists()


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "stairs"])
    assert "expected some of tests, step, stack, attack, certificates, models, found stairs" in capsys.readouterr().err
