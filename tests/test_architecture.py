"""The house: what stands where, which way the imports go, what the engine must not do, and what the docs say of it."""

import ast
import configparser
import graphlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest
import strict_cupy
from code_lines import ENGINE, NNLITE, PACKAGES, README, ROOT, TABLES, code_lines, engine_lines, readme_tables
from cupy_names import Use, problems, stand_in, uses_of_nnlite

pytestmark = pytest.mark.once

LIMIT = 1565  # code lines of the engine: 950, and what attacks, certificates, checks, short reprs and a quick step add


def module_name(path):
    """Return the name under which a source file is imported: that of a package for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("nnlite", *parts) if parts[0] == "cli" else parts
    return ".".join(parts).removesuffix(".__init__")


SOURCES = {module_name(path): path for folder in (NNLITE, ROOT / "cli") for path in folder.rglob("*.py")}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def part_of(name):
    """Return the file of the engine or the package that a dotted name of nnlite belongs to."""
    return name.removeprefix("nnlite.").partition(".")[0]


def imported(module):
    """Return the dotted names of all that a module imports, also inside functions."""
    names = []
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def lines_with(kind, modules=SOURCES):
    """Yield each node of a kind with its place, as "nnlite.sgd:12", in all source files or in some."""
    for module in modules:
        for node in ast.walk(TREES[module]):
            if isinstance(node, kind):
                yield f"{module}:{node.lineno}", node


# What stands where


def test_nnlite_is_the_engine_and_eight_packages():
    found = {path.name for path in NNLITE.iterdir()} - {"__pycache__", "__init__.py", "__init__.pyi", "__main__.py"}
    assert found - {"py.typed"} == {*(f"{name}.py" for name in ENGINE), *PACKAGES}


def test_every_package_is_installed():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    packages = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
    assert set(settings["options"]["packages"].split()) == {*packages, "nnlite.data"}


SOURCE = '''
"""A docstring
of two lines."""

import os  # counted


class A:
    """Not counted."""

    text = """counted,
    both lines"""


def f(x):
    """Not counted."""
    # not counted
    return [
        x,

        os,
    ]
'''


def test_code_lines_are_those_with_a_token_and_not_of_a_docstring(tmp_path):
    (tmp_path / "a.py").write_text(SOURCE, "utf-8")
    assert code_lines(tmp_path / "a.py") == 1 + 3 + 5


def test_the_engine_is_small():
    assert sum(engine_lines().values()) <= LIMIT


# Imports


ABOVE = {
    "nnlite.interop.sklearn": "training"
}  # an estimator trains: it may import what that package may, and the package


def test_imports_go_down_the_list_of_files_and_packages():
    # nnlite/__init__.py gathers the engine, and below it only its __version__ is used; __main__.py stands above all.
    # The files of a package share its place in the list.
    order = [*ENGINE, *PACKAGES]
    for module in SOURCES.keys() - {"nnlite", "nnlite.__main__"}:
        place = ABOVE.get(module, part_of(module))
        allowed = order[: order.index(place) + 1] if place != "cli" else [*order, "cli", "nnlite"]
        for name in imported(module):
            if name.partition(".")[0] == "nnlite" and name != "nnlite.__version__":
                assert part_of(name) in allowed, f"{module} imports {name}"
                assert not name.startswith(tuple(ABOVE)), f"{module} imports {name}, which stands above it"


def test_no_imports_go_in_a_circle():
    # nor within a package. `from nnlite.training import x` means the module x, or what the package's __init__ names.
    graph = {module: set() for module in SOURCES}
    for module, needed in graph.items():
        for name in imported(module):
            needed |= {name} if name in SOURCES else {name.rpartition(".")[0]} & SOURCES.keys()
    del graph["nnlite"]  # its __version__, all that others want of it, stands there before it imports anything
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_backend_is_the_only_file_that_imports_cupy():
    importing = [module for module in SOURCES if any(name.startswith("cupy") for name in imported(module))]
    assert importing == ["nnlite.backend"]


def modules_after(code):
    """Return the first names of all modules that `code` has loaded in a fresh interpreter, but for Python's own."""
    code = f"import sys\ntry:\n    {code}\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    return {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)


def test_the_engine_needs_numpy_alone():
    assert modules_after("from nnlite import *") - modules_after("import lazy_loader, numpy.random") == {"nnlite"}


HEAVY = {
    "matplotlib",
    "pooch",
    "requests",
    "scipy",
    "cupy",
    "dask",
    "distributed",
    "torch",
    "jax",
    "sklearn",
    "art",
    "onnx",
}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["attack", "--help"], ["grid", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    loaded = modules_after(f"from nnlite.cli.main import main; main({arguments})")
    assert "click" in loaded
    assert not HEAVY & loaded


# What the engine must not do

# Right sides of `is` that mean one thing in each process: NumPy itself, and types; in the packages also a member of an
# enumeration, this process's main thread, and its own stream.
SINGLE = {"None", "True", "False", "np", "bool", "int", "float", "str"}
SINGLE_IN_THE_PACKAGES = {*SINGLE, "ParameterSource.DEFAULT", "threading.main_thread()", "stdout"}


def test_nothing_hangs_on_the_identity_of_values():
    found = []
    for place, node in lines_with(ast.Compare):
        single = SINGLE if part_of(place.partition(":")[0]) in ENGINE else SINGLE_IN_THE_PACKAGES
        for operator, right in zip(node.ops, map(ast.unparse, node.comparators), strict=True):
            if isinstance(operator, ast.Is | ast.IsNot) and right not in single and not right.startswith("type("):
                found.append(f"{place}: {ast.unparse(node)}")
    assert not found


def test_the_engine_keys_nothing_by_id():
    calls = lines_with(ast.Call, [f"nnlite.{name}" for name in ENGINE])
    assert [place for place, call in calls if ast.unparse(call.func) == "id"] == []


def test_no_promise_is_an_assert_that_python_may_leave_out():
    assert [place for place, _ in lines_with(ast.Assert)] == []


def test_the_stand_in_for_cupy_has_exactly_the_functions_that_nnlite_calls():
    # `make cupy-names` asks the real CuPy the same, methods included
    used = [use for use in uses_of_nnlite() if "." not in use.name and use.name not in {"ndarray", "cuda"}]
    known = {name for name in stand_in() if "." not in name}
    assert {use.name for use in used} == known
    assert list(problems(strict_cupy, (use for use in used if use.name in known))) == []


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        (Use("einsum", 0, frozenset(), "a.py:1"), "a.py:1: einsum: module 'strict_cupy' has no attribute 'einsum'"),
        (Use("ndarray.std", 0, frozenset(), "a.py:1"), "a.py:1: ndarray.std: type object 'ndarray' has no attribute"),
        (Use("where", 1, frozenset({"out"}), "a.py:1"), "a.py:1: where: got an unexpected keyword argument 'out'"),
        (Use("exp", 3, frozenset(), "a.py:1"), "a.py:1: exp: too many positional arguments"),
        (Use("ndarray.sum", 0, frozenset({"where"}), "a.py:1"), "a.py:1: ndarray.sum: got an unexpected keyword"),
    ],
)
def test_what_cupy_would_refuse_is_found(use, problem):
    (found,) = problems(strict_cupy, [use])
    assert found.startswith(problem)


# What the docs say


def test_the_readme_has_the_true_sizes():
    found = TABLES.search(README.read_text("utf-8"))
    assert found[0] == readme_tables(), "make lines writes them anew"


ROW = re.compile(r"^\| (?P<what>[^|]+) \| [^|]+ \| (?P<defined>[^|]+) \|", re.MULTILINE)
DEFINITION = re.compile(r"\[`(nnlite\.[\w.]+)`\]\(\.\./([\w/]+\.py)\)")


def definitions():
    """Return the rows of the equations' table of docs/paper.md: (what, name, file), one for each definition."""
    text = (ROOT / "docs" / "paper.md").read_text("utf-8")
    table = text.partition("## The equations\n")[2].partition("\n## ")[0]
    rows = list(ROW.finditer(table))[2:]  # after the head and the rule
    return [(row["what"], name, file) for row in rows for name, file in DEFINITION.findall(row["defined"])]


def test_the_page_of_the_paper_has_a_row_for_each_equation():
    found = [re.match(r"Eq\. (\d)$", what) for what in dict.fromkeys(what for what, _, _ in definitions())]
    assert [int(match[1]) for match in found if match] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("what", "name", "file"), definitions())
def test_what_the_page_of_the_paper_names_is_defined_there(what, name, file):
    found = pkgutil.resolve_name(name)
    module = file.removesuffix(".py").replace("/", ".")
    assert f"{name}.".startswith(f"{module}.")
    if inspect.isclass(found) or inspect.isfunction(found) or isinstance(found, property):
        found = found.fget if isinstance(found, property) else found
        assert f"{found.__module__}.{found.__qualname__}" == name
    elif not inspect.ismodule(found):
        assert name in {f"{module}.{target}" for target in assigned(module)}
    if what.startswith("Eq. "):
        assert re.search(rf"{re.escape(what)}\b", inspect.getdoc(found) or ""), f"{name}: its docstring names no {what}"


def assigned(module):
    """Return the names that a module assigns at its top."""
    targets = [
        node.targets if isinstance(node, ast.Assign) else [node.target]
        for node in TREES[module].body
        if isinstance(node, ast.Assign | ast.AnnAssign)
    ]
    return {ast.unparse(target) for group in targets for target in group}


def test_the_api_page_has_every_file_of_the_engine_in_the_order_of_reading():
    page = (ROOT / "docs/api.md").read_text("utf-8")
    found = [name for name in re.findall(r"automodule:: nnlite\.(\w+)$", page, re.MULTILINE) if name in ENGINE]
    assert found == list(ENGINE)
