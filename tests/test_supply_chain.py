"""What nnlite needs is declared, with a lower bound in the one form that `make test-lowest` turns into a version."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOUND = re.compile(r"([a-z][a-z0-9-]*)>=[0-9.]+(; python_version .*)?")
PACKAGES = {
    "art": "adversarial-robustness-toolbox",
    "cupy": "cupy-cuda12x",
    "lazy_loader": "lazy-loader",
    "sklearn": "scikit-learn",
}
BELOW = {"urllib3": "requests", "dask": "distributed", "cloudpickle": "distributed"}  # comes with the other


def declared():
    """Return all requirements, those of the extras included, line by line."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lists = [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    return [line for text in lists for line in text.split("\n") if line]


@pytest.mark.parametrize("requirement", sorted(set(declared())))
def test_each_requirement_has_a_lower_bound(requirement):
    assert BOUND.fullmatch(requirement)


def test_what_stands_in_several_extras_has_one_bound():
    bounds = set(declared())
    assert len({BOUND.match(bound)[1] for bound in bounds}) == len(bounds)


def test_all_that_is_imported_is_declared():
    names = {BOUND.match(requirement)[1] for requirement in declared()}
    for path in [*(ROOT / "nnlite").rglob("*.py"), *(ROOT / "cli").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                for package in {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"nnlite"}:
                    assert BELOW.get(package, PACKAGES.get(package, package)) in names, f"{path}: {package}"
