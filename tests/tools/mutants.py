"""Mutation testing of the engine's arithmetic: change one operator or number at a time, and see whether a test fails.

    python tests/tools/mutants.py losses lbfgs    # or without names: all of them
    python tests/tools/mutants.py certify --every 16

prints each mutant that no test noticed, and the share that was killed; docs/trust.md says why those live. --every
tests a sample of what would take hours. The mutants are Cosmic Ray's. Each is tested in a fork of a process that has
imported all libraries, by the tests of its file, with 20 examples of Hypothesis that are always the same; the source on
the disk stays as it is.
"""

import argparse
import ast
import difflib
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import islice
from pathlib import Path

import autograd.numpy  # noqa: F401 - imported once here, not by each fork
import hypothesis
import hypothesis.extra.numpy
import pytest
import scipy.optimize
import scipy.special  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

import nnlite.cli.main  # noqa: F401 - for the libraries that it needs; nnlite itself is imported anew by each fork

for _name in [name for name in sys.modules if name.partition(".")[0] == "nnlite"]:
    del sys.modules[_name]

ROOT = Path(__file__).parents[2]
ENGINE = {  # module of nnlite -> the tests that are its own
    "backend": ["backend", "reprs"],
    "blas": ["blas"],
    "init": ["network"],
    "inputs": ["inputs"],
    "layers": ["layers", "network", "own_layers"],
    "losses": ["losses"],
    "network": ["network", "multitask", "exact", "own_layers"],
    "penalties": ["penalties", "own_layers"],
    "attacks": ["attacks"],
    "apgd": ["apgd"],
    "lbfgs": ["lbfgs"],
    "datagrad": ["datagrad", "exact", "multitask", "update"],
    "methods": ["methods", "settings"],
    "sgd": ["network", "datagrad"],
    "certify": ["certify"],
    "gradcheck": ["gradcheck"],
    "training.update": ["update", "datagrad", "methods"],
}
BITS = ("BitOr", "BitAnd", "BitXor")
LEAST = 95.0  # percent
OPTIONS = ("-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass
class Mutant:
    """One change of one file: the line as it was and as it is, and the whole changed source."""

    line: int
    before: str
    after: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Yield what Cosmic Ray makes of `source`, less what any test kills or none can.

    Left out are changes of annotations, changes that do not compile, and bitwise operators and shifts in the place of
    arithmetic, which floats refuse, and +1 in the place of -1, which is 1.
    """
    tree, lines = get_ast(source), source.splitlines()
    notes = list(_annotations(ast.parse(source)))
    for name in operator_names():
        words = name.split("_")
        if (
            "Shift" in name
            or "UAdd" in name
            or (words[0].endswith("BinaryOperator") and (words[1] in BITS) != (words[2] in BITS))
        ):
            continue
        operator = get_operator(name)
        if operator.arguments():
            continue
        positions = [start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            signature = lines[start[0] - 1][start[1] :].startswith("*,")  # Cosmic Ray takes it for a product
            if signature or any(first <= start < last for first, last in notes):
                continue
            changed = mutate_code(source, operator(), occurrence)
            try:
                if changed is None or ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)):
                    continue
                compile(changed, name, "exec")
            except SyntaxError:
                continue
            pairs = difflib.ndiff(source.splitlines(), changed.splitlines())
            found = [line for line in pairs if line[0] in "-+"]
            before, after = (" / ".join(line[2:].strip() for line in found if line[0] == sign) for sign in "-+")
            yield Mutant(start[0], before, after, changed)


def _annotations(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for node in ast.walk(tree):
        alias = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None), alias and node.value):
            if isinstance(note, ast.AST):
                yield (note.lineno, note.col_offset), (note.end_lineno, note.end_col_offset)


class Mutated(SourceFileLoader, MetaPathFinder):
    """Finds the module `name`, and loads it with `source` in the place of what stands on the disk."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def find_spec(self, fullname, path=None, target=None):
        return spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, fullname):
        return compile(self.source, self.path, "exec")


def survives(module: str, source: str, seconds: int) -> bool:
    """Whether its tests pass with `source` in the place of what `module` of nnlite holds, within the time and 8 GB."""
    wanted = {f"test_{test}.py" for test in (*ENGINE[module], "values")}
    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if path.name in wanted]
    assert len(files) == len(wanted), f"{module}: expected the tests {sorted(wanted)}, found {files}"
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    os.setsid()
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of work: a busy machine kills no mutant
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    sys.meta_path.insert(0, Mutated(f"nnlite.{module}", _file(module), source))
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=20,
        phases=["explicit", "generate"],
        derandomize=True,
        database=None,
        deadline=None,
    )
    hypothesis.settings.load_profile("mutants")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        failed = pytest.main([*OPTIONS, *files])
    os._exit(int(failed))


def _file(module: str) -> Path:
    return ROOT / "nnlite" / f"{module.replace('.', '/')}.py"


def main(modules: list[str], every: int) -> int:
    """Test one of `every` so many mutants of `modules`, and print what is left of them; 1 where too many are."""
    total = killed = 0
    for module in modules:
        source, name = _file(module).read_text("utf-8"), _file(module).relative_to(ROOT)
        start = time.monotonic()
        if not survives(module, source, 600):
            sys.exit(f"{module}: the tests fail without a mutant")
        limit = 10 + int(5 * (time.monotonic() - start))
        count = left = 0
        for mutant in islice(mutants(source), 0, None, every):
            count += 1
            if survives(module, mutant.source, limit):
                left += 1
                print(f"{name}:{mutant.line}\n- {mutant.before}\n+ {mutant.after}", flush=True)
        took = time.monotonic() - start
        print(f"{name}: {count - left} of {count} mutants killed, {took:.0f} s", flush=True)
        total, killed = total + count, killed + count - left
    share = 100 * killed / total
    print(f"{killed} of {total} mutants killed: {share:.1f} %")
    return int(share < LEAST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("modules", nargs="*", default=list(ENGINE), metavar="MODULE")
    parser.add_argument("--every", type=int, default=1)
    sys.exit(main(**vars(parser.parse_args())))
