"""The package: as it lies in a clone, as a wheel holds it, and under which name it is installed."""

import ast
import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nnlite

pytestmark = pytest.mark.once

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


def test_nnlite_is_imported_without_numpy_until_a_name_is_used(clone):
    script = "import sys, nnlite.cli.start; print('numpy' in sys.modules); nnlite.Dense; print('numpy' in sys.modules)"
    assert python("-c", script, cwd=clone) == ["False", "True"]


def test_each_name_of_the_engine_can_be_imported(clone):
    stub = ast.parse((ROOT / "nnlite" / "__init__.pyi").read_text("utf-8"))
    imports = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    homes = {name.name: line.module for line in imports if line.module for name in line.names}
    assert sorted(nnlite.__all__) == sorted(homes)
    for name, home in homes.items():
        assert getattr(nnlite, name) is getattr(importlib.import_module(f"nnlite.{home}"), name)
    files = {path.stem for path in (ROOT / "nnlite").glob("*.py")} - {"__init__", "__main__"}
    assert {name.name for line in imports if not line.module for name in line.names} == files
    assert python("-c", "import nnlite; print(nnlite.attacks.PGD.__name__)", cwd=clone) == ["PGD"]
    script = "from nnlite import *; print(*dir())"  # by the list of names that type checkers read
    listed = next(ast.literal_eval(line.value) for line in stub.body if isinstance(line, ast.Assign))
    assert sorted(listed) == sorted(homes)
    assert set(listed) <= set(python("-c", script, cwd=clone)[0].split())


def test_a_wheel_holds_all_packages():
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "nnlite").rglob("__init__.py")}
    assert set(SETTINGS["options"]["packages"].split()) == packages | {"nnlite.cli", "nnlite.data"}


# Names and versions

NAME = "nnlite"  # which on the public index is another project's
WHOLE = rf"(?<![\w./-]){NAME}(?![\w./-])"
INSTALLER = r"\b(?:pip3?|pipx|uv|poetry|pdm|conda|mamba)\b[^`\n]*?\b(?:install|add|run|download|wheel)"
ANOTHER_PROJECT = [
    re.compile(pattern)
    for pattern in (
        # with options and other packages before it, but not after '.[extra]', which is a clone's
        rf"(?:{INSTALLER}|\buvx)(?:[ \t]+(?!['\"]?\\?\.)[^\s`]+)*?[ \t]+['\"]?{WHOLE}",
        rf"\binstall[\s'\"f]+{WHOLE}",  # a text in two lines of code
        rf"(?<![\w./-]){NAME}\[[a-z]",  # with an extra
        rf"{WHOLE}\s*[=~>]=\s*\d",  # as a requirement
        rf"pypi\.org/\S*/{NAME}\b",
    )
]


def tells_to_install_another_project(text):
    return next((found[0] for pattern in ANOTHER_PROJECT if (found := pattern.search(text))), None)


@pytest.mark.parametrize(
    "text",
    [
        "pip install NAME",
        "pip install 'NAME[interop]'",
        'pip install "NAME[interop,test]"',
        "python -m pip install --upgrade NAME",
        "$(BIN)/pip install --quiet NAME==0.2.0",
        "pip3 install torch NAME",
        "`pip install NAME`",
        "`uv pip install NAME`",
        "uv add NAME",
        "uvx NAME train",
        "uv run --with NAME python",
        "pipx install NAME",
        "pipx run NAME train",
        "poetry add NAME",
        "conda install -c conda-forge NAME",
        "install it with pip install '\"\n    f\"NAME[gpu]'",
        'install it with pip install "\n    "NAME',
        "the extra NAME[gpu]",
        "NAME>=0.2",
        "NAME == 0.2.0",
        "https://pypi.org/project/NAME",
    ],
)
def test_a_relapse_would_be_found(text):
    assert tells_to_install_another_project(text.replace("NAME", NAME))


@pytest.mark.parametrize(
    "text",
    [
        "pip install '.[interop]' in a clone of NAME",
        "`pip install .` installs the command `NAME` by itself",
        "pip install NAME-datagrad",
        "pip install dist/NAME_datagrad-0.2.0-py3-none-any.whl",
        "pip install git+https://example.org/them/NAME.git",
        "pip uninstall NAME",
        "NAME 0.2.0, NumPy 2.4.6",
        "NAME.__version__ == 1",
    ],
)
def test_what_is_no_relapse_is_not_found(text):
    assert not tells_to_install_another_project(text.replace("NAME", NAME))


def test_no_file_tells_to_install_another_project():
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    texts = {name: (ROOT / name).read_text("utf-8", "replace") for name in listed if (ROOT / name).is_file()}
    assert len(texts) > 100
    found = {name: tells_to_install_another_project(text) for name, text in texts.items()}
    assert not {name: what for name, what in found.items() if what}


def test_the_distribution_has_a_name_of_its_own():
    assert SETTINGS["metadata"]["name"] == "nnlite-datagrad"


def test_the_version_is_one_in_all_places():
    stated = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert {stated[1], newest[1]} == {nnlite.__version__}


def test_the_changelog_says_where_each_module_went():
    of_0_1_0 = """adversarial arrays attacks audit backend bench checkpoint cluster datagrad datasets disk downloads
        errors evaluation gradcheck grid init interop.art interrupts layers lbfgs losses makers memory methods network
        paper peers penalties plots processes products report reproduction rotation runs settings sgd training trainings
        update weights work worker"""
    moved = {name for name in of_0_1_0.split() if not (ROOT / "nnlite" / f"{name.replace('.', '/')}.py").exists()}
    rows = re.findall(r"^\| `([\w.]+)` \| `nnlite\.", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert moved == {name for name in rows if name in of_0_1_0.split()}  # the other rows are names within modules
    assert rows == sorted(rows)
