"""What it takes to add something: CONTRIBUTING.md says how many files, and these tests add it without touching any.

The choices of an option are made when the command line is imported: a test adds its row in a process of its own, before
that.
"""

import json
import subprocess
import sys

import click
import numpy as np
import pytest
from nets import biased_mlp

from nnlite import Penalty, Term, generator, masked, mlp, sgd_step, weighted_passes
from nnlite.cli.main import main
from nnlite.errors import NnliteError
from nnlite.gradcheck import check_penalty

pytestmark = pytest.mark.once

NET = ["--hidden", "8", "--epochs", "2"]


@pytest.fixture
def nnlite_with(tmp_path):
    """Call commands, in a process that has run `code` before it imports the command line; return what they print."""

    def call(code, *commands):
        after = f"""
import json
from click.testing import CliRunner
from nnlite.cli.main import main
printed = []
for command in {commands}:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, f"{{command}}: {{result.stderr}}"
    printed.append(result.stdout)
print(json.dumps(printed))
"""
        process = [sys.executable, "-c", code + after]
        return json.loads(subprocess.run(process, cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout)

    return call


# A penalty


def log_cosh(a):
    return np.logaddexp(a, -a).sum(axis=-1) - a.shape[-1] * np.log(2)


LOG_COSH = Penalty("logcosh", value=log_cosh, gradient=np.tanh)


@pytest.mark.parametrize("penalty", [LOG_COSH, masked(LOG_COSH, np.array([1.0, 0.0, 2.0, 1.0]))], ids=["all", "masked"])
def test_a_penalty_of_ones_own_has_an_exact_gradient(penalty):
    rng = np.random.default_rng(0)
    checks = check_penalty(biased_mlp([4, 6, 5, 3], rng), rng.random((8, 4)), rng.integers(0, 3, 8), penalty)
    assert len(checks) == 6
    assert all(check.passed for check in checks)


@pytest.mark.parametrize("phi", [0.1, None], ids=["a step", "exact"])
def test_a_penalty_of_ones_own_trains(phi):
    rng = np.random.default_rng(0)
    x, net = rng.random((60, 4)), mlp([4, 16, 3], generator(0, "weights"), np.float64)
    y, terms = x[:, :3].argmax(axis=1), [Term(LOG_COSH, 0.05, phi)]

    def objective():
        once = net.run(x, y)
        return (once.loss + 0.05 * log_cosh(once.dx)).mean()

    before = objective()
    for _ in range(100):
        sgd_step(net, net.gradients(weighted_passes(net, x, y, terms)), 0.5)
    assert objective() < before / 2


PENALTY = """
import numpy as np
from nnlite.penalties import PENALTIES, Penalty
PENALTIES["cosh"] = Penalty("cosh", value=lambda a: np.cosh(a).sum(axis=-1), gradient=np.sinh)
"""


def test_one_row_adds_a_penalty_to_the_command_line(nnlite_with):
    checked, trained = nnlite_with(
        PENALTY,
        ["gradcheck", "--datagrad", "--penalty", "cosh", "--hidden", "6", "--batch-size", "4"],
        ["train", *NET, "--reg", "datagrad", "--term", "cosh,0.01,0.1", "--term", "cosh,0.01,exact"],
    )
    assert "cosh" in checked
    assert trained.startswith("runs/digits/datagrad-cosh-0.01-0.1-cosh-0.01-exact-hidden8-epochs2: best epoch")


# A method

METHOD = """
from nnlite.datagrad import Term
from nnlite.methods import METHODS, Method
from nnlite.penalties import L1, L2
METHODS["both"] = Method("L1 and L2", lambda lam, phi: (Term(L1, lam, phi), Term(L2, lam, phi)), has_exact=True)
"""


def test_one_row_adds_a_method_to_the_command_line(nnlite_with, tmp_path):
    numbers = ["--reg", "both", "--lam", "0.01"]
    listed, trained, exact, *_ = nnlite_with(
        METHOD,
        ["train", "--help"],
        ["train", *NET, *numbers, "--phi", "0.1"],
        ["train", *NET, *numbers, "--gradient", "exact"],
        ["train", *NET, "--reg", "datagrad", "--term", "l1,0.01,0.1", "--term", "l2,0.01,0.1", "--name", "terms"],
        ["attack", "--adversary", "both-lam0.01-phi0.1-hidden8-epochs2", "--plot", "accuracy.png"],
    )
    assert "both lam phi" in " ".join(listed.split())
    assert trained.startswith("runs/digits/both-lam0.01-phi0.1-hidden8-epochs2: best epoch")
    assert exact.startswith("runs/digits/both-exact-lam0.01-hidden8-epochs2: best epoch")
    runs = tmp_path / "runs" / "digits"
    one, same = (runs / name / "weights.safetensors" for name in ("both-lam0.01-phi0.1-hidden8-epochs2", "terms"))
    assert one.read_bytes() == same.read_bytes()
    assert (tmp_path / "accuracy.png").stat().st_size > 1000


# An attack

ATTACK = """
from dataclasses import dataclass
import numpy as np
from nnlite.attacks import Crafted, project
from nnlite.inputs import UNIT
from nnlite.evaluation.named_attacks import NAMED_ATTACKS, OPTIONS, NamedAttack, Option

@dataclass(frozen=True)
class Shift:
    pixels: int = 1
    norm, clip = "linf", True

    @property
    def parameters(self):
        return {"pixels": self.pixels}

    def craft(self, net, x, y, phi, rng, box=UNIT):
        shifted = np.roll(x, self.pixels, axis=-1)
        return Crafted([project(shifted, x, size, "linf", box) if size else x for size in phi])

OPTIONS["pixels"] = Option(int, "How far")
NAMED_ATTACKS["shift"] = NamedAttack("Shift", "linf", Shift, "the image shifted", {"pixels": 1}, phi=(0.0, 0.5, 1.0))
"""


def test_one_row_adds_an_attack_to_the_command_line(nnlite_with):
    shift = ["attack", "--adversary", "rect", "--noise", "shift"]
    listed, _, table, told, checked = nnlite_with(
        ATTACK,
        ["attack", "--help"],
        ["train", *NET, "--name", "rect"],
        shift,
        [*shift, "--pixels", "3", "--save", "FILE", "--json"],
        ["verify", "FILE", "--run", "rect"],
    )
    words = " ".join(listed.split())
    assert "shift the image shifted, L-infinity norm" in words
    assert "--pixels INTEGER How far. [shift: 1]" in words
    assert "shift: 0,0.5,1" in words
    assert table.startswith("rect crafts Shift noise on 500 test images of digits, L-infinity norm, pixels 1, clipped")
    assert json.loads(told)["parameters"] == {"pixels": 3}
    assert json.loads(told)["phi"] == [0, 0.5, 1]
    assert "FILE: Shift noise, L-infinity norm, pixels 3, clipped to [0, 1]; crafted by rect" in checked


# A command


def test_each_command_is_a_file_of_its_own():
    for name, command in main.commands.items():
        assert command.callback.__module__ == f"nnlite.cli.{name}"


def test_a_command_that_is_added_ends_as_all_others_do(nnlite, monkeypatch):
    @click.command()
    @click.option("--fail", is_flag=True)
    def greet(fail):
        """Say hello."""
        if fail:
            raise NnliteError("greet: expected nothing, found --fail; leave it out")
        click.echo("hello")

    monkeypatch.setitem(main.commands, "greet", greet)
    assert "greet" in nnlite("--help").stdout
    assert nnlite("greet").stdout == "hello\n"
    failed = nnlite("greet", "--fail")
    assert (failed.exit_code, failed.stderr) == (2, "Error: greet: expected nothing, found --fail; leave it out\n")
