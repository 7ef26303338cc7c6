"""Fixtures that several test files share."""

import os
import signal
import subprocess
import sys
from pathlib import Path

# Before NumPy is loaded, here and in all processes that tests start: where other programs run, two BLAS threads wait
# for each other at every product, and the tests take ten times as long (docs/performance.md).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest
from click.testing import CliRunner

from nnlite.cli.main import main
from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.training.loop import train
from nnlite.training.settings import Settings

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def digits():
    """The embedded digits."""
    return load("digits")


@pytest.fixture(scope="session")
def trained(digits):
    """The embedded digits, and a small Rect net that knows them and that no test changes."""
    return digits, train(Settings(hidden=(64, 64), epochs=15), digits).net


@pytest.fixture(scope="session")
def mnist():
    """The real MNIST, where NNLITE_DATA says that it is at hand."""
    named = os.environ.get("NNLITE_DATA")
    if not named or not (Path(named) / "mnist").is_dir():
        pytest.skip("MNIST is not at hand: set NNLITE_DATA to the folder that holds mnist/")
    return load("mnist")


@pytest.fixture(scope="session")
def art():
    """The toolbox of the extra interop; a test that asks for it is skipped where the extra is missing."""
    try:
        import nnlite.interop.art  # noqa: F401
    except NnliteError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_art(monkeypatch):
    """Make the toolbox impossible to import, also where it is installed."""
    monkeypatch.setitem(sys.modules, "art.attacks", None)
    monkeypatch.delitem(sys.modules, "nnlite.interop.art", raising=False)


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, kept here instead of written."""
    kept = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: kept.append(figure))
    return kept


@pytest.fixture
def nnlite(tmp_path, monkeypatch):
    """Call the command line in an empty folder, with an empty cache and no MNIST; a traceback fails the test.

    However slow the machine, work is taken for quick, so progress prints no line that depends on the clock.
    """
    monkeypatch.setattr("nnlite.cli.progress.PATIENCE", 1e6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNLITE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    return lambda *args: CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


@pytest.fixture
def ctrl_c(tmp_path):
    """Call the command line in a terminal's place, press Ctrl-C at its first trained net, and return its stderr."""

    def call(*args):
        process = subprocess.Popen(
            [sys.executable, "-c", "from nnlite.cli.main import main; main()", *map(str, args)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background it is ignored
        )
        said = [next(line for line in process.stderr if "trained" in line)]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the workers too
        said.append(process.communicate(timeout=60)[1])
        assert process.returncode == 130, said
        assert "Traceback" not in said[1]
        return "".join(said)

    return call
