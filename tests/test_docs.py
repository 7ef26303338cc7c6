"""The README, its neighbours and every page of docs/: code runs, output is as printed, links and names lead somewhere.

Fences: `python` is executed; `console` is executed and its output compared, numbers to within 2 (points of
accuracy differ with the machine's BLAS); `sh` holds commands that take too long for a test, so they are
only parsed. A `python` fence that imports a library of PERHAPS is left out where that is not installed.
"""

import importlib.util
import pkgutil
import re
import runpy
import shlex
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from nnlite import L1, Term, weighted_passes
from nnlite.cli.main import main
from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.evaluation.named_attacks import NAMED_ATTACKS
from nnlite.methods import METHODS
from nnlite.penalties import PENALTIES

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PERHAPS = {"foolbox", "onnxruntime", "torch", "torchattacks"}  # `make test-torch` has them
NUMBER = re.compile(r"-?\d+(\.\d+)?")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def run_console(example):
    """Run each line after `$ ` and compare what it prints with the lines below it, where there are any."""
    for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        program, *arguments = shlex.split(command)
        assert program == "nnlite", command
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{command}: {result.stderr}"
        if expected.strip():
            assert alike(result.stdout.split(), expected.split()), f"{command} printed\n{result.stdout}"


def alike(found, expected):
    """Compare words; numbers may differ by 2, and a rule of dashes is as long as it likes."""
    if len(found) != len(expected):
        return False
    for one, other in zip(found, expected, strict=True):
        if NUMBER.fullmatch(one) and NUMBER.fullmatch(other):
            if abs(float(one) - float(other)) > 2:
                return False
        elif set(one) | set(other) != {"─"} and one != other:
            return False
    return True


@pytest.mark.once
@every_page
def test_code_in_the_docs_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsers = [PythonCodeBlockParser(), CodeBlockParser(language="console", evaluator=run_console)]
    with ExitStack() as stack:
        for rows in (PENALTIES, METHODS, NAMED_ATTACKS):  # a page may add one, for itself alone
            stack.enter_context(mock.patch.dict(rows))
        for example in Sybil(parsers=parsers).parse(page).examples():
            needed = PERHAPS & {*re.findall(r"^ *(?:from|import) (\w+)", example.parsed, re.MULTILINE)}
            if all(map(importlib.util.find_spec, needed)):
                example.evaluate()


@every_page
def test_commands_in_the_docs_are_understood(page):
    text = page.read_text("utf-8")
    fences = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    commands = [line for fence in fences for line in fence.replace("\\\n", " ").splitlines()]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in commands:
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:
            words.pop(0)
        if words and words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), line
        elif words and words[0] == "nnlite":
            # click meets an unknown command or option before it answers --help
            result = CliRunner().invoke(main, [*words[1:], "--help"])
            assert result.exit_code == 0, f"{line}: {result.stderr}"


def anchors(page):
    """Return what `#` can lead to in a page of Markdown: its headings, as GitHub and the site name them, and ids."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)", text, re.M)
    return {
        *(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings),
        *re.findall(r'\bid="([^"]+)"', text),
    }


@every_page
def test_links_in_the_docs_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or file.suffix != ".md" or anchor in anchors(file), f"{page.name}: {target}#{anchor}"


@every_page
def test_names_in_the_docs_exist(page):
    """`nnlite.module.name` in backquotes can be imported, and `folder/file.py` is there."""
    text = page.read_text("utf-8")
    for name in re.findall(r"`(nnlite(?:\.\w+)+)(?:\([^`]*\))?`", text):
        try:
            assert pkgutil.resolve_name(name), f"{page.name}: {name}"
        except NnliteError:
            assert f"{name}.".startswith("nnlite.interop.torch.")  # not installed; make test-torch looks at it
    for file in re.findall(r"`((?:nnlite|cli|tests|data|docs)/[\w./]+\.\w+)`", text):
        assert (ROOT / file).exists(), f"{page.name}: {file}"


@pytest.mark.parametrize("page", ["docs/trust.md", "CONTRIBUTING.md"])
def test_each_test_that_a_page_names_is_there(page):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text("utf-8")))
    tests = (ROOT / "tests").rglob("*.py")
    there = {name for path in tests for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))}
    assert named
    assert not named - there


@pytest.mark.once
def test_the_diagram_of_the_readme_shows_a_step_of_datagrad(tmp_path):
    """Its mix is that of `weighted_passes`, whose gradients are checked elsewhere; its numbers are in the files."""
    script = runpy.run_path(str(ROOT / "docs/images/idea.py"))
    step = script["idea"]()
    d, label = load("digits").test.batch(slice(474, 475))
    np.testing.assert_array_equal(step.clean.inputs[0], d)
    passes = weighted_passes(step.net, d, label, [Term(L1, 0.01, 0.1)])
    by_engine = next(iter(step.net.gradients(passes)))["W"]
    np.testing.assert_array_equal(step.gradients[2], by_engine)
    script["draw"](step, tmp_path / "idea.svg")
    committed = (ROOT / "docs/images/idea.svg").read_text("utf-8")
    drawn = (tmp_path / "idea.svg").read_text("utf-8")
    words, others = (" ".join(re.findall(r"<!-- \(?(.*?)(?: %\))? -->", text)) for text in (drawn, committed))
    assert alike(words.split(), others.split())
    said = " ".join(re.findall(r"reads \d, loss [\d.]+", (ROOT / "README.md").read_text("utf-8")))
    shown = " ".join(f"reads {one.logits[0].argmax()}, loss {one.loss[0]:.3f}" for one in (step.clean, step.shifted))
    assert alike(said.split(), shown.split())
