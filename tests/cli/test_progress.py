"""Progress: a bar on a terminal, lines elsewhere, on stderr; the result on stdout stays as it is."""

import io
import os
import re
import subprocess
import sys
import termios
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from nnlite.cli.options import message
from nnlite.cli.progress import Bar, Lines, progress

pytestmark = pytest.mark.once

NET = ("--hidden", 8, "--epochs", 2)


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which goes on only where a test says so."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("nnlite.cli.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("nnlite.cli.progress.threading.Timer", lambda *args: SimpleNamespace(start=int, cancel=int))
    return clock


@pytest.fixture
def lines(capsys):
    """What was printed since the last call, in lines."""
    return lambda: capsys.readouterr().err.splitlines()


# Lines


def test_quick_work_is_silent(clock, lines):
    with progress("PGD") as show:
        for done in range(11):
            show(done, 10)
            clock.now += 0.19
    assert lines() == []


def test_work_says_how_far_it_is_every_half_minute_and_how_long_it_will_take(clock, lines):
    with progress("PGD") as show:
        for done in range(0, 100, 10):
            show(done, 100)
            clock.now += 15
    assert lines() == [
        " 20 %, 0:02:00 left  PGD",
        " 40 %, 0:01:30 left  PGD",
        " 60 %, 0:01:00 left  PGD",
        " 80 %, 0:00:30 left  PGD",
    ]


def test_half_minutes_without_progress_are_silent(clock, lines):
    with progress("training") as show:
        for done in (0, 50, 50.001, 50.002):
            clock.now += 40
            show(done, 100)
    assert lines() == ["  0 %  training", " 50 %, 0:00:40 left  training"]


def test_new_work_has_a_line_once_the_whole_takes_longer(clock, lines):
    with progress("attacks") as show:
        show(0, 10, "R1")
        clock.now += 2
        show(10, 10, "R1")
        assert lines() == []
        show(0, 20, "PGD")
        clock.now += 4
        show(5, 20, "PGD")
        show(0, 9, "Square")
    assert lines() == ["  0 %  PGD", "  0 %  Square"]


def test_the_time_that_is_left_is_that_of_the_work_at_hand(clock, lines):
    with progress("attacks") as show:
        show(0, 10, "R1")
        clock.now += 1000
        show(10, 10)
        show(0, 10, "PGD")
        clock.now += 40
        show(1, 10)
    assert lines()[-1] == " 10 %, 0:06:00 left  PGD"


def test_each_piece_of_work_has_a_line_if_that_is_asked_for(clock, lines):
    with progress("training", each=True) as show:
        for epoch in (1, 2):
            show(epoch, 2, f"epoch {epoch}/2")
            clock.now += 1
    assert lines() == [" 50 %  epoch 1/2", "100 %  epoch 2/2"]


def test_a_note_is_printed_at_once_and_cannot_move_the_cursor(clock, lines):
    with progress("training") as show:
        show.note("going on")
        show(1, 4)
        show.note("trained \x1b[2Jrect")
        show(0, 0)
        show.note("nothing to do")
    assert lines() == ["going on", " 25 %  trained  [2Jrect", "100 %  nothing to do"]


def test_work_that_tells_nothing_for_long_is_named(monkeypatch, lines):
    monkeypatch.setattr("nnlite.cli.progress.PATIENCE", 0.01)
    printed = threading.Event()
    monkeypatch.setattr("nnlite.cli.progress.message", lambda text: (message(text), printed.set()))
    with progress("training"):
        assert printed.wait(60)
    assert lines() == ["training"]


def test_the_end_of_the_work_ends_the_wait(monkeypatch, lines):
    monkeypatch.setattr("nnlite.cli.progress.PATIENCE", 0.2)
    with progress("training"):
        pass
    time.sleep(0.5)
    assert lines() == []


# The bar


@pytest.fixture
def screen():
    """A terminal of 80 columns, and what it was sent."""
    return Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)


def drawn(bar, screen):
    """Return the line that a bar draws."""
    with screen.capture() as capture:
        screen.print(bar)
    return capture.get().rstrip("\n")


def test_the_bar_shows_what_is_under_way_how_far_it_is_and_for_how_long(clock, screen):
    bar = Bar("training", screen)
    clock.now += 7
    assert re.fullmatch(r"training ━+ +0 % 0:00:07", drawn(bar, screen))
    bar(0, 60, "epoch 0/60")
    clock.now += 100
    assert re.fullmatch(r"epoch 0/60 ━+ +0 % 0:01:40", drawn(bar, screen))
    bar(15, 60, "epoch 15/60  loss 0.1234  validation 98.76 %")
    assert re.fullmatch(r"epoch 15/60  loss 0.1234  validation 98.76 % ━+[╸╺]? + 25 % 0:05:00 left", drawn(bar, screen))


@pytest.mark.parametrize("what", ["R1", "noise of dgl1-lam0.01-phi0.1", "n" * 300, "[red]\x1b[2J"])
def test_the_bar_fits_the_terminal_with_room_for_what_a_key_prints(clock, screen, what):
    bar = Bar(what, screen)
    for done in (0, 1, 10):
        bar(done, 10)
        clock.now += 3600
        line = drawn(bar, screen)
        assert "\n" not in line
        assert "\x1b" not in line
        assert 40 < len(line) <= 77
        assert line.startswith(what[:2])
        assert "%" in line


def test_without_colour_the_bar_has_none(clock, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)  # set to "" it means to some versions of rich that it is set
    for no_color in (False, True):
        if no_color:
            monkeypatch.setenv("NO_COLOR", "1")
        console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard")
        bar = Bar("PGD", console)
        bar(5, 10)
        assert ("\x1b[9" in drawn(bar, console)) == (not no_color)


@pytest.mark.parametrize(("term", "kind"), [("xterm", Bar), ("dumb", Lines)])
def test_a_terminal_that_cannot_move_its_cursor_has_lines(monkeypatch, term, kind):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", term)
    with progress("PGD") as show:
        assert isinstance(show, kind)


# The commands


@pytest.fixture
def terminal(nnlite, monkeypatch):
    """Call nnlite as on a terminal; return its stdout, and its stderr without colours and moves of the cursor."""

    def call(*args):
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
        result = nnlite(*args)
        assert result.exit_code < 2, result.stderr  # 1: the verdict of an audit
        last = re.split(r"\x1b\[2K", result.stderr)[-1]
        assert "━" not in last  # the bar is wiped out
        return result.stdout, re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", result.stderr)

    return call


def test_a_training_shows_a_bar_of_its_epochs(terminal):
    stdout, stderr = terminal("train", *NET, "--name", "rect")
    assert stdout.startswith("runs/digits/rect: best epoch ")
    assert re.search(r"epoch 2/2  loss \d\.\d{4}  validation \d+\.\d\d % ━+ 100 %", stderr)


def test_a_training_that_is_finished_leaves_no_bar_behind(terminal):
    terminal("train", *NET, "--name", "rect")
    _, stderr = terminal("train", *NET, "--name", "rect", "--resume")
    assert "\nruns/digits/rect is finished: there is nothing to do\n" in re.sub(r"\r", "\n", stderr)


def test_a_grid_shows_a_bar_of_the_whole_and_a_line_for_each_net(terminal):
    stdout, stderr = terminal("grid", *NET, "--lr", "0.1,0.2", "--jobs", 1)
    assert [line.split()[0] for line in stdout.splitlines() if line.startswith("digits/")]
    assert len(set(re.findall(r"trained (rect\S*)", stderr))) == 2
    assert re.search(r"training ━+ 100 %", stderr)


def test_an_audit_shows_a_bar_for_each_attack(nnlite, terminal):
    nnlite("train", *NET, "--name", "rect")
    quick = ("--steps", 2, "--apgd-steps", 5, "--tries", 1, "--queries", 5, "--square-examples", 5)
    stdout, stderr = terminal("audit", "rect", "--examples", 20, *quick)
    assert "worst" in stdout
    assert re.search(r"certificates [━╸╺]+ +\d+ %", stderr)


def test_an_attack_shows_a_bar(nnlite, terminal):
    nnlite("train", *NET, "--name", "rect")
    stdout, stderr = terminal("attack", "--adversary", "rect", "--noise", "pgd")
    assert "phi 0.05" in stdout
    assert re.search(r"PGD noise ━+ +100 %", stderr)


def test_a_certificate_shows_a_bar(nnlite, terminal):
    nnlite("train", *NET, "--name", "rect")
    _, stderr = terminal("certify", "rect", "--examples", 10)
    assert re.search(r"rect [━╸╺]+ +\d+ %", stderr)


def test_a_check_of_an_attack_file_shows_a_bar(nnlite, terminal):
    nnlite("train", *NET, "--name", "rect")
    nnlite("attack", "--adversary", "rect", "--save", "kept.safetensors")
    stdout, stderr = terminal("verify", "kept.safetensors")
    assert "all is as the file says" in stdout
    assert re.search(r"checking kept.safetensors [━╸╺]+ +\d+ %", stderr)


def test_a_check_of_gradients_shows_a_bar(terminal):
    _, stderr = terminal("gradcheck", "--hidden", 6)
    assert re.search(r"backprop ━+ +100 %", stderr)  # the passes are all foreseen
    _, stderr = terminal("gradcheck", "--datagrad", "--hidden", 6, "--batch-size", 10)
    assert re.search(r"the finite difference [━╸╺]+", stderr)
    assert re.search(r"the exact update ━+ +100 %", stderr)


def test_a_race_shows_a_bar_that_is_drawn_between_the_turns_alone(terminal):
    small = ("--hidden", 4, "--batch-size", 4, "--rounds", 3, "--threads", 1)
    _, stderr = terminal("bench", "step", *small)
    drawn = re.findall(r"(?:timing in turns|first runs|batch 4) [━╸╺]+ +(\d+) %", stderr)
    assert drawn == [*["0"] * 4, "16", "33", "50", "66", "83", "83"]  # at the start, each first run, turns, the end


# What a terminal shows


@pytest.fixture
def pseudo_terminal(tmp_path, monkeypatch):
    """Call nnlite in a terminal of some width, in an empty folder; return all that it is sent."""
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "NNLITE_DATA"):
        monkeypatch.delenv(name, raising=False)

    def call(*args, columns=80, **variables):
        ours, its = os.openpty()
        termios.tcsetwinsize(its, (30, columns))
        command = [sys.executable, "-c", "from nnlite.cli.main import main; main()", *map(str, args)]
        environment = {**os.environ, "TERM": "xterm", **variables}
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, cwd=tmp_path, env=environment)
        os.close(its)
        sent = b""
        try:
            while part := os.read(ours, 65536):
                sent += part
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(ours)
        assert process.wait() < 2, sent.decode()
        return sent.decode()

    return call


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_closing_line_of_a_training_breaks_between_words(pseudo_terminal, columns):
    sent = pseudo_terminal("train", *NET, "--name", "rect", columns=columns)
    lines = sent[sent.rindex("\x1b[2K") + 4 :].split("\r\n")
    assert all(len(line) <= columns for line in lines)
    assert len(lines) > 2
    text = " ".join(line.strip() for line in lines)
    assert re.search(
        r"runs/digits/rect: best epoch \d of 2, validation [\d.]+ %, test [\d.]+ %, under its own R1", text
    )
    assert re.search(r"noise [\d.]+ at 0\.005, [\d.]+ at 0\.01, [\d.]+ at 0\.05, [\d.]+ at 0\.1 % $", text)


def test_elsewhere_it_is_one_line(nnlite):
    assert nnlite("train", *NET, "--runs", "a" * 100).stdout.count("\n") == 1


QUICK = ("--examples", 10, "--steps", 2, "--apgd-steps", 3, "--tries", 1, "--proven", 0)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_holds_for_all_that_is_printed(nnlite, pseudo_terminal, no_color):
    nnlite("train", *NET, "--name", "rect")
    nnlite("attack", "--adversary", "rect", "--save", "kept.safetensors")
    for args, word in ((("verify", "kept.safetensors"), "all is as"), (("audit", "rect", *QUICK), "not tested")):
        sent = pseudo_terminal(*args, NO_COLOR=no_color)
        assert word in sent
        assert bool(re.search(r"\x1b\[[\d;]*(?:3|9)\d[;m]", sent)) == (not no_color)
