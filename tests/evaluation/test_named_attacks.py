"""Attacks by name: a row makes the attack that it describes, told what was asked and nothing else."""

import subprocess
import sys

import pytest

from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1, R2, Noise
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.named_attacks import L2_PHI, NAMED_ATTACKS, OPTIONS, choose_attack
from nnlite.lbfgs import LBFGS
from nnlite.penalties import L1


@pytest.fixture(params=NAMED_ATTACKS)
def name(request):
    """The name of each attack; those that need the toolbox are skipped where it is missing."""
    if NAMED_ATTACKS[request.param].extra:
        request.getfixturevalue("art")
    return request.param


def test_a_row_says_of_its_attack_what_the_attack_says_itself(name):
    row, chosen = NAMED_ATTACKS[name], choose_attack(name)
    made = chosen.attack
    assert (made.norm, made.clip) == (row.norm, row.clip is not False)
    assert chosen.phi == row.phi == (L2_PHI if row.norm == "l2" else PAPER_PHI)
    assert chosen.seed == row.options.get("seed")
    told = {option: value for option, value in row.options.items() if option != "seed" and value is not None}
    assert told.items() <= chosen.parameters.items()


def test_every_option_of_a_row_reaches_its_attack(name):
    row = NAMED_ATTACKS[name]
    assert row.options.keys() <= OPTIONS.keys()
    for option in row.options:
        value = OPTIONS[option].type(3)
        chosen = choose_attack(name, **{option: value})
        assert (chosen.seed if option == "seed" else chosen.parameters[option]) == value


def test_every_option_is_of_some_row():
    assert {option for row in NAMED_ATTACKS.values() for option in row.options} == OPTIONS.keys()


def test_the_defaults_are_those_of_the_library():
    assert choose_attack("r1").attack == R1
    assert choose_attack("r2").attack == R2
    assert choose_attack("pgd").attack == PGD()
    assert choose_attack("pgd-l2").attack == PGD("l2")
    assert choose_attack("apgd").attack == APGD()
    assert choose_attack("apgd-t").attack == APGD(losses=("targets",))
    assert choose_attack("apgd-l2").attack == APGD("l2")
    assert choose_attack("lbfgs").attack == LBFGS()
    assert choose_attack("fmn").attack == FMN()
    assert choose_attack("fmn-l2").attack == FMN("l2")


def test_the_defaults_are_those_of_the_toolbox_bridge(art):
    from nnlite.interop.art import ArtAttack

    for name, row in NAMED_ATTACKS.items():
        if row.extra:
            assert choose_attack(name).parameters == ArtAttack(name).parameters


def test_fgsm_is_another_name_of_r1():
    assert choose_attack("fgsm") == choose_attack("r1")
    assert choose_attack("fgsm", clip=True).attack == Noise(L1, clip=True)


def test_names_are_not_used_twice():
    names = [other for name, row in NAMED_ATTACKS.items() for other in (name, *row.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "options", "title", "details"),
    [
        ("r1", {}, "R1 noise", "not clipped"),
        ("r2", {"clip": True}, "R2 noise", "clipped to [0, 1]"),
        (
            "pgd-l2",
            {"steps": 10, "seed": 3},
            "PGD noise",
            "L2 norm, steps 10, restarts 1, stride 0.25, seed 3, clipped to [0, 1]",
        ),
        ("lbfgs", {}, "L-BFGS noise", "L2 norm, searches 10, iterations 50, clipped to [0, 1]"),
    ],
)
def test_an_attack_is_described_with_all_that_it_was_told(name, options, title, details):
    chosen = choose_attack(name, **options)
    assert (chosen.title, chosen.details) == (title, details)


def test_other_sizes_may_be_chosen():
    assert choose_attack("r1", (0.0, 0.3)).phi == (0.0, 0.3)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("r3", {}, "noise: expected one of r1, r2, pgd, .*, found 'r3'"),
        (
            "r1",
            {"steps": 5},
            "steps: noise r1 does not use it, only pgd, pgd-l2, apgd, apgd-t, apgd-l2, fmn, fmn-l2",
        ),
        ("fgsm", {"seed": 5}, "seed: noise r1 does not use it"),
        ("pgd", {"sheep": 5}, "sheep: noise pgd does not use it; leave it out"),
        ("pgd", {"seed": -1}, "seed: expected an integer of at least 0, found -1"),
        ("pgd", {"seed": 0.5}, "seed: expected an integer of at least 0, found 0.5"),
        ("pgd", {"restarts": 0}, "restarts: expected an integer of at least 1, found 0"),
        ("lbfgs", {"clip": False}, "clip: noise lbfgs always keeps pixels within"),
        ("square", {"clip": False}, "clip: noise square always keeps pixels within"),
    ],
)
def test_what_an_attack_does_not_take_is_refused(name, options, words):
    with pytest.raises(NnliteError, match=words):
        choose_attack(name, **options)


def test_pixels_of_an_attack_that_always_clips_may_be_asked_to_be_clipped():
    assert choose_attack("lbfgs", clip=True).attack == LBFGS()


def test_the_names_need_no_toolbox_and_its_attacks_say_what_to_install(no_art):
    code = "import sys, nnlite.evaluation.named_attacks; print('art' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
    with pytest.raises(NnliteError, match=r"pip install '\.\[interop\]' in a clone of nnlite"):
        choose_attack("deepfool")
