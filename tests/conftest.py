"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from nnlite.cli.main import main
from nnlite.datasets import load


@pytest.fixture(scope="session")
def digits():
    """The embedded digits."""
    return load("digits")


@pytest.fixture(scope="session")
def mnist():
    """The real MNIST, where NNLITE_DATA says that it is at hand."""
    named = os.environ.get("NNLITE_DATA")
    if not named or not (Path(named) / "mnist").is_dir():
        pytest.skip("MNIST is not at hand: set NNLITE_DATA to the folder that holds mnist/")
    return load("mnist")


@pytest.fixture
def nnlite(tmp_path, monkeypatch):
    """Call the command line in an empty folder, with an empty cache and no MNIST; a traceback fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNLITE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    return lambda *args: CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)
