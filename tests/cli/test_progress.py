"""On a terminal progress is a bar on stderr, and the result on stdout stays as it is."""

import re

import pytest

NET = ("--hidden", 8, "--epochs", 2)


@pytest.fixture
def terminal(nnlite, monkeypatch):
    """Call nnlite as on a terminal; return its stdout, and its stderr without colours and moves of the cursor."""

    def call(*args):
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
        result = nnlite(*args)
        assert result.exit_code < 2, result.stderr  # 1: the verdict of an audit
        return result.stdout, re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", result.stderr)

    return call


def test_a_training_shows_a_bar_of_its_epochs(terminal):
    stdout, stderr = terminal("train", *NET)
    assert stdout.startswith("runs/digits/rect: best epoch ")
    assert re.search(r"epoch +2/2 ━+ loss \d\.\d{4}  validation \d+\.\d\d %  left", stderr)


def test_a_grid_shows_a_bar_of_the_whole_and_a_line_for_each_net(terminal):
    stdout, stderr = terminal("grid", *NET, "--lr", "0.1,0.2", "--jobs", 1)
    assert [line.split()[0] for line in stdout.splitlines() if line.startswith("digits/")]
    assert "rect-lr0.1" in stderr
    assert "rect-lr0.2" in stderr
    assert re.search(r"━+ 100% left", stderr)


def test_an_audit_shows_a_bar_for_each_attack(nnlite, terminal):
    nnlite("train", *NET)
    quick = ("--steps", 2, "--restarts", 1, "--tries", 1, "--queries", 5, "--square-examples", 5)
    stdout, stderr = terminal("audit", "rect", "--examples", 20, *quick)
    assert "worst" in stdout
    assert re.search(r"Square at phi 0.05 ━+ \d/\d left", stderr)
