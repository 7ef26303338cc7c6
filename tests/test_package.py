"""The package: as it lies in a clone, as a wheel holds it, and under which name it is installed."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nnlite

ROOT = Path(__file__).parent.parent
SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")
SOURCE = shutil.ignore_patterns("__pycache__")
DEPENDENCIES = [path for path in sys.path if path and Path(path).resolve() not in (ROOT, ROOT / "tests")]

WHERE = """
import sys, nnlite, nnlite.cli.main, nnlite.cli.train, nnlite.data
from importlib import resources
print(*(module.__file__ for module in (nnlite, nnlite.cli, nnlite.cli.main, nnlite.data)), sep="\\n")
print(resources.files("nnlite.data") / "paper-tables.csv")
assert resources.files("nnlite.data").joinpath("paper-tables.csv").is_file()
assert not {"cli", "data"} & sys.modules.keys(), "imported under two names"
"""


@pytest.fixture
def clone(tmp_path):
    """A copy of what a clone holds of the package."""
    place = tmp_path / "clone"
    for folder in ("nnlite", "cli", "data"):
        shutil.copytree(ROOT / folder, place / folder, ignore=SOURCE)
    shutil.copy(ROOT / "setup.cfg", place)
    return place


@pytest.fixture
def installed(tmp_path):
    """A folder that holds the package as a wheel does: cli/ and data/ in it."""
    place = tmp_path / "installed"
    for folder, target in {"nnlite": "nnlite", "cli": "nnlite/cli", "data": "nnlite/data"}.items():
        shutil.copytree(ROOT / folder, place / target, ignore=SOURCE)
    return place


def python(*arguments, cwd, more=()):
    """Start Python, without what the virtual environment says of nnlite, and return what it printed."""
    path = os.pathsep.join(map(str, [*more, *DEPENDENCIES]))
    call = [sys.executable, "-S", *arguments]  # -S: no .pth file leads to this clone
    done = subprocess.run(call, cwd=cwd, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_clone_is_imported_whole_where_nnlite_is_not_installed(clone):
    assert python("-c", WHERE, cwd=clone) == [
        str(clone / file)
        for file in (
            "nnlite/__init__.py",
            "cli/__init__.py",
            "cli/main.py",
            "data/__init__.py",
            "data/paper-tables.csv",
        )
    ]


def test_a_clone_is_imported_whole_where_nnlite_is_installed(clone, installed):
    assert python("-c", WHERE, cwd=clone, more=[installed]) == python("-c", WHERE, cwd=clone)


def test_what_is_installed_is_imported_whole_elsewhere(tmp_path, installed):
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").write_text("raise ImportError('of another project')")
    found = python("-c", WHERE, cwd=tmp_path, more=[installed])
    assert found == [
        str(installed / "nnlite" / file)
        for file in ("__init__.py", "cli/__init__.py", "cli/main.py", "data/__init__.py", "data/paper-tables.csv")
    ]


def test_other_folders_of_a_clone_are_no_modules_of_nnlite(clone):
    (clone / "runs").mkdir()
    script = "from importlib.util import find_spec; print(find_spec('nnlite.runs'), find_spec('nnlite.nnlite'))"
    assert python("-c", script, cwd=clone) == ["None None"]


@pytest.mark.parametrize("place", ["clone", "elsewhere"])
def test_python_m_nnlite_is_the_command(clone, installed, tmp_path, place):
    cwd, more = (clone, []) if place == "clone" else (tmp_path, [installed])
    assert python("-m", "nnlite", "--version", cwd=cwd, more=more) == [f"nnlite, version {nnlite.__version__}"]
    small = ["--hidden", "8", "--epochs", "1", "--seed", "0,1", "--jobs", "2"]  # in processes that import it again
    python("-m", "nnlite", "grid", *small, cwd=cwd, more=more)
    assert len(list(cwd.glob("runs/digits/*/weights.safetensors"))) == 2


def test_a_wheel_holds_all_packages():
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "nnlite").rglob("__init__.py")}
    assert set(SETTINGS["options"]["packages"].split()) == packages | {"nnlite.cli", "nnlite.data"}
