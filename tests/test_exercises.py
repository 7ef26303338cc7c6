"""The exercises of docs/exercises: each solution passes its check, and a stub or a wrong answer is told what to do."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnlite import Penalty
from nnlite.gradcheck import away_from_kinks

DOCS = Path(__file__).parent.parent / "docs"
FOLDER = DOCS / "exercises"
SOLUTIONS = FOLDER / "solutions"
SPEC = importlib.util.spec_from_file_location("check_exercises", FOLDER / "check.py")
exercises = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(exercises)


@pytest.fixture
def solution():
    """Return the solution of an exercise, as a module of its own that a test may spoil."""

    def load(number):
        spec = importlib.util.spec_from_file_location(f"solution_{number}", SOLUTIONS / f"exercise_{number}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.once
@pytest.mark.parametrize("number", exercises.CHECKS)
def test_each_solution_is_one(number):
    assert re.search(r"\d", exercises.check(number, SOLUTIONS))


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (1, "value: return the sum of |a_s|^1.5"),
        (2, "tangent: a change of x becomes a change of y"),
        (3, "Broken.gradients: take those of Dense"),
        (4, "naive: subtract the largest logit"),
        (5, "meet: halve the gap"),
    ],
)
def test_each_stub_says_what_to_do(number, told, capsys):
    assert exercises.main([str(number)]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith(f"Exercise {number} is not solved yet.\n{told}")
    assert f"docs/exercises/exercise_{number}.py" in shown


def test_a_stub_has_what_its_solution_has():
    for number in exercises.CHECKS:
        stub, solved = ((folder / f"exercise_{number}.py").read_text("utf-8") for folder in (FOLDER, SOLUTIONS))
        defined = re.findall(r"^ *(?:def|class) \w+", stub, re.MULTILINE)
        assert [name for name in defined if name not in solved] == []


# Wrong answers


def refused(check, module):
    with pytest.raises(exercises.UnsolvedError) as error:
        check(module)
    return str(error.value)


def test_a_gradient_without_its_sign_is_refused(solution):
    module = solution(1)
    module.POWER = Penalty("power", module.value, lambda a: 1.5 * np.sqrt(abs(a)))
    assert "gradient: of (4, -9, 0) it is (3, -4.5, 0)" in refused(exercises.power, module)


def test_a_gradient_that_is_infinite_at_0_is_refused(solution):
    module = solution(1)
    module.POWER = Penalty("power", module.value, lambda a: 1.5 * a / np.sqrt(abs(a)))
    with np.errstate(invalid="ignore"):
        assert refused(exercises.power, module) == "gradient: not finite where a is 0"


def test_a_tangent_for_small_inputs_alone_is_refused(solution):
    module = solution(2)
    module.Softplus.tangent = lambda self, x, change: change * np.exp(x) / (1 + np.exp(x))
    assert "at x = -1000 and 1000" in refused(exercises.softplus, module)


def test_a_tangent_without_curvature_is_refused(solution):
    module = solution(2)
    module.Softplus.backward_tangent = lambda self, x, dy, change: 0 * x
    assert refused(exercises.softplus, module).startswith("backward_tangent: off by 1 from central differences")


@pytest.mark.parametrize(
    ("sees", "told"),
    [
        (lambda module, net, x, y: False, "missed a fault of 0.1 % in the weight gradient"),
        (lambda module, net, x, y: True, "a false alarm, on a sound net"),
        (
            lambda module, net, x, y: any(not one.passed for one in module.check_network(net, x, y)),
            "a false alarm, on a sound net with a ReLU close to its kink",
        ),
        (
            lambda module, net, x, y: any(
                not one.passed for one in module.check_network(away_from_kinks(net, x), x, y)
            ),
            "missed a fault of 0.1 % in the tangent",
        ),
    ],
    ids=["blind", "alarmed", "at a kink", "no tangent"],
)
def test_a_check_that_misses_a_fault_is_refused(solution, sees, told):
    module = solution(3)
    module.sees = lambda net, x, y: sees(module, net, x, y)
    assert refused(exercises.broken, module) == f"sees: {told}"


def test_the_trap_is_no_way_out_of_itself(solution):
    module = solution(4)
    module.careful = module.naive
    assert refused(exercises.float32, module).startswith("careful: expected -1.9e-11, found 0")


def test_a_bracket_that_stays_open_is_refused(solution):
    module = solution(5)
    module.meet = lambda net, x, y, precision: (0.0, 1.0, None)
    assert refused(exercises.meeting, module) == "they have not met: proven 0.000, broken 1.000, 1.000 apart"


def test_a_proof_that_is_none_is_refused(solution):
    module = solution(5)
    module.meet = lambda net, x, y, precision: (0.2, 0.205, np.array([[0.3, 0.4]]))
    assert refused(exercises.meeting, module) == "proven: a phi of 0.200 is not"


# The command


def test_a_number_that_is_no_exercise_is_refused():
    process = [sys.executable, str(FOLDER / "check.py"), "6"]
    found = subprocess.run(process, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stdout == "exercise: expected a number from 1 to 5, such as make exercise N=1\n"


def test_the_page_shows_what_the_command_prints(capsys):
    exercises.main(["1"])
    assert f"```\n{capsys.readouterr().out}```\n" in (DOCS / "exercises.md").read_text("utf-8")
