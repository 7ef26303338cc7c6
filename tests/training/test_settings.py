"""Settings: what each may be, what runs are called, what lambda and phi mean, and one home for all defaults."""

import dataclasses
import json
import re

import numpy as np
import pytest

from nnlite.cli.bench import step
from nnlite.cli.grid import grid
from nnlite.cli.train import train
from nnlite.errors import NnliteError
from nnlite.methods import METHODS
from nnlite.penalties import L2, L2_NORM, LINF
from nnlite.training.mix import mix
from nnlite.training.run_folder import load_run
from nnlite.training.settings import DEFAULTS, EXAMPLES, FIELDS, REQUIRED, Settings, read_settings, with_defaults

NUMBERS = {"lam": 0.01, "phi": 0.1, "alpha": 0.5, "p": "2", "steps": 7, "term": ("l1,0.01,0.1",)}
NUMBERS_OF_DGL1 = {"reg": "dgl1", "lam": 0.01, "phi": 0.1}
NAN, INF = float("nan"), float("inf")


def numbers(reg):
    return {name: NUMBERS[name] for name in METHODS[reg].takes}


# --- what each setting may be


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"reg": "dgl3"}, "reg"),
        ({"data": "../cifar"}, "data"),
        ({"device": "tpu"}, "device"),
        ({"reg": "dgl1"}, "lam"),
        ({"reg": "dgl1", "phi": 0.1}, "lam"),
        ({"reg": "dgl1", "lam": 0.01}, "phi"),
        ({"reg": "dgl2", "lam": 0.01}, "phi"),
        ({"reg": "l1"}, "lam"),
        ({"reg": "l1", "lam": 0.01, "phi": 0.1}, "phi"),
        ({"reg": "l2", "lam": 0.01, "phi": 0.1}, "phi"),
        ({"lam": 0.01}, "lam"),
        ({"phi": 0.1}, "phi"),
        ({"reg": "l1", "lam": -0.01}, "lam"),
        ({"reg": "l1", "lam": NAN}, "lam"),
        ({"reg": "l1", "lam": INF}, "lam"),
        ({"reg": "dgl1", "lam": -1.0, "phi": 0.1}, "lam"),
        ({"reg": "dgl1", "lam": 0.01, "phi": 0.0}, "phi"),
        ({"reg": "dgl1", "lam": 0.01, "phi": -0.1}, "phi"),
        ({"reg": "dgl1", "lam": 0.01, "phi": NAN}, "phi"),
        ({"reg": "dgl1", "lam": 0.01, "phi": INF}, "phi"),
        ({"lr": 0.0}, "lr"),
        ({"lr": -0.1}, "lr"),
        ({"lr": NAN}, "lr"),
        ({"lr": INF}, "lr"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"hidden": (16, 0)}, "hidden"),
        ({"decay": 0.0}, "decay"),
        ({"decay": 1.01}, "decay"),
        ({"decay": NAN}, "decay"),
        ({"patience": 0}, "patience"),
        ({"patience": 2.0}, "patience"),
        ({"hidden": (-16,)}, "hidden"),
    ],
)
def test_wrong_settings_are_named(wrong, named):
    with pytest.raises(NnliteError, match=f"^{named}: "):
        Settings(**wrong)


def test_the_defaults_are_the_papers_net():
    assert Settings().hidden == (784, 784, 784)
    assert Settings().batch_size == 100
    assert Settings().run_name == "rect"
    assert Settings(reg="dgl1", lam=0.01, phi=0.1).run_name == "dgl1-lam0.01-phi0.1"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": "fast"}, "lr: expected a finite number above 0, found 'fast'"),
        ({"lam": True, "reg": "l1"}, "lam: expected a finite number of at least 0, found True"),
        ({"epochs": 0}, "epochs: expected an integer from 1 to 100,000, found 0"),
        ({"epochs": 1.0}, "epochs: expected an integer from 1 to 100,000, found 1.0"),
        ({"seed": 1 << 63}, "seed: expected an integer of at least 0, below 2**63, found 9223372036854775808"),
        ({"multitask": 1}, "multitask: expected true or false, found 1"),
        (
            {"hidden": [8]},
            "hidden: expected a tuple of at most 100, each an integer of at least 1, below 2**63, found [8]",
        ),
        ({"data": None}, "data: expected a plain folder name of at most 200 bytes, found None"),
        ({"multitask": True}, "gamma: a multi-task net needs the weight of its second loss; give for example 0.5"),
        ({"gamma": 0.5}, "gamma: only a multi-task net uses it; leave it out or add --multitask"),
    ],
)
def test_an_error_says_what_was_expected_and_found(wrong, said):
    with pytest.raises(NnliteError, match=f"^{re.escape(said)}$"):
        Settings(**wrong)


# --- what a method takes, and what its runs are called


@pytest.mark.parametrize(
    ("reg", "given", "slug"),
    [
        ("none", {}, "rect"),
        ("l1", {"lam": 0.001}, "l1-lam0.001"),
        ("l2", {"lam": 1e-5}, "l2-lam1e-05"),
        ("dgl1", {"lam": 0.01, "phi": 0.1}, "dgl1-lam0.01-phi0.1"),
        ("dgl2", {"lam": 0.0, "phi": 5.0}, "dgl2-lam0-phi5"),
        ("dgl1", {"lam": 0.01, "gradient": "exact"}, "dgl1-exact-lam0.01"),
        ("lyu", {"phi": 0.1, "p": "inf"}, "lyu-phi0.1-pinf"),
        ("goodfellow", {"phi": 0.25, "alpha": 0.5}, "goodfellow-phi0.25-alpha0.5"),
        ("szegedy", {"alpha": 0.9}, "szegedy-alpha0.9"),
        ("pgd", {"phi": 0.1, "steps": 10}, "pgd-phi0.1-steps10"),
        ("trades", {"lam": 6.0, "phi": 0.1, "steps": 7}, "trades-lam6-phi0.1-steps7"),
        ("datagrad", {"term": ("l1,0.01,0.1", "linf,1,exact")}, "datagrad-l1-0.01-0.1-linf-1-exact"),
        (
            "datagrad",
            {"term": ("l1,0.01,0.1,rotation",), "multitask": True, "gamma": 0.25},
            "mt-datagrad-l1-0.01-0.1-rotation-gamma0.25",
        ),
        ("none", {"multitask": True, "gamma": 0.5}, "mt"),
        ("none", {"multitask": True, "gamma": 0.1}, "mt-gamma0.1"),
        ("dgl1", {"lam": 0.1, "gradient": "exact", "multitask": True, "gamma": 0.5}, "mt-dgl1-exact-lam0.1"),
    ],
)
def test_a_run_is_called_by_its_method_and_numbers(reg, given, slug):
    assert Settings(reg, **given).run_name == Settings(reg, **given).method_name == slug


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"seed": 1}, "rect-seed1"),
        ({"hidden": (64,)}, "rect-hidden64"),
        ({"lr": 0.2, "epochs": 40}, "rect-lr0.2-epochs40"),
        ({"hidden": (64, 64), "epochs": 20, **NUMBERS_OF_DGL1}, "dgl1-lam0.01-phi0.1-hidden64-64-epochs20"),
        ({"hidden": (), "batch_size": 50, "device": "gpu"}, "rect-hiddennone-batch50-gpu"),
        ({"lr": 0.12345678}, "rect-lr0.12345678"),
        ({"decay": 0.95, "patience": 10}, "rect-decay0.95-patience10"),
        ({"data": "mnist"}, "rect"),  # the data set is the folder
        ({"multitask": True, "gamma": 0.25, "seed": 7}, "mt-gamma0.25-seed7"),
        ({"reg": "datagrad", "term": ("l1, 0.01 ,0.1 ",)}, "datagrad-l1-0.01-0.1"),
    ],
)
def test_a_run_is_called_by_what_differs_from_the_defaults(given, name):
    assert Settings(**given).run_name == name


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"data", *EXAMPLES, "reg", "gradient", "gamma"}))
def test_whatever_differs_is_in_the_name(name):
    known = {
        "hidden": (9,),
        "device": "gpu",
        "multitask": True,
        "decay": 0.9,
        "label": "kind",
        "split": (0.8, 0.1, 0.1),
    }
    other = known[name] if name in known else (FIELDS[name].default or 0) + 2
    more = {"gamma": 0.5} if name == "multitask" else {}
    assert Settings(**{name: other}, **more).run_name != Settings().run_name


def test_a_name_fits_every_file_system():
    wide = [Settings(hidden=(k,) + (784,) * 99) for k in (1, 2)]
    names = [settings.run_name for settings in wide]
    assert len(set(names)) == 2
    for name in (*names, Settings(lr=1e8).run_name, Settings(reg="l1", lam=1e-5).run_name):
        assert len(f".{name}.checkpoint") <= 143  # what eCryptfs allows
        assert re.fullmatch(r"[a-z0-9.+-]*[a-z0-9]", name)  # Windows refuses <>:"/\\|?* and a dot or a blank at the end


@pytest.mark.parametrize("reg", METHODS)
def test_a_method_needs_each_option_that_it_takes(reg):
    Settings(reg, **numbers(reg))
    for name in METHODS[reg].takes:
        others = {other: value for other, value in numbers(reg).items() if other != name}
        with pytest.raises(NnliteError, match=rf"^{name}: method {reg} needs it; give for example .*--{name} "):
            Settings(reg, **others)


@pytest.mark.parametrize("reg", METHODS)
def test_the_numbers_given_as_an_example_are_taken_without_a_warning(reg):
    given = {name: EXAMPLES[name] for name in METHODS[reg].takes}
    assert mix(Settings(reg, **given))[1] == []


@pytest.mark.parametrize("reg", METHODS)
def test_an_option_of_another_method_is_refused(reg):
    for name in NUMBERS.keys() - set(METHODS[reg].takes):
        with pytest.raises(NnliteError, match=f"^{name}: method {reg} does not use it; leave it out"):
            Settings(reg, **numbers(reg), **{name: NUMBERS[name]})


def test_the_exact_gradient_is_for_penalties_and_takes_no_step():
    for reg, method in METHODS.items():
        if method.has_exact:
            (term,) = Settings(reg, lam=0.01, gradient="exact").terms
            assert term.phi is None
            with pytest.raises(NnliteError, match=r"^phi: the exact gradient takes no step; leave it out"):
                Settings(reg, lam=0.01, phi=0.1, gradient="exact")
        else:
            with pytest.raises(
                NnliteError, match=f"^gradient: method {reg} has no penalty .* dgl1, dgl2, dgl2norm, dglinf"
            ):
                Settings(reg, **numbers(reg), gradient="exact")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"reg": "dgl3"}, "reg: expected one of none, .*found 'dgl3'"),
        ({"reg": "dgl1", "lam": 0.1, "gradient": "symbolic"}, "gradient: expected one of finite, exact"),
        ({"reg": "goodfellow", "phi": 0.1, "alpha": 1.01}, "alpha: expected a number from 0 to 1, found 1.01"),
        ({"reg": "goodfellow", "phi": 0.1, "alpha": -0.01}, "alpha"),
        ({"reg": "goodfellow", "phi": 0.1, "alpha": float("nan")}, "alpha"),
        ({"reg": "lyu", "phi": 0.1, "p": "3"}, "p: expected one of 1, 2, inf, found '3'"),
        ({"reg": "nokland", "phi": 0.0}, "phi: expected a finite number above 0"),
        ({"reg": "nokland", "phi": -0.1}, "phi: expected a finite number above 0"),
        (
            {"reg": "datagrad", "term": ("l3,0.01,0.1",)},
            "term: expected PENALTY.*one of l1, .*found 'l3",
        ),
        ({"reg": "datagrad", "term": ("l1,0.01",)}, "term: expected PENALTY"),
        ({"reg": "datagrad", "term": ("l1,0.01,tiny",)}, "term: expected PENALTY"),
        ({"reg": "datagrad", "term": ("l1,0.01,0.1,digit,5",)}, "term: expected PENALTY"),
        ({"reg": "datagrad", "term": ("l1,-1,0.1",)}, "lam: expected a finite number of at least 0"),
        ({"reg": "datagrad", "term": ("l1,0.01,0",)}, "phi: expected a finite number above 0"),
        ({"reg": "pgd", "phi": 0.1, "steps": 0}, "steps: expected an integer of at least 1"),
        ({"reg": "trades", "lam": 6.0, "phi": 0.1, "steps": 2.5}, "steps: expected an integer of at least 1"),
        ({"reg": "miyato", "lam": -1.0, "phi": 0.1}, "lam: expected a finite number of at least 0"),
    ],
)
def test_wrong_numbers_are_named(given, named):
    with pytest.raises(NnliteError, match=f"^{named}"):
        Settings(**given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"lam": 0.01, "phi": 2.0**-24}, "phi: expected more than 6e-08, .* and at most 3e\\+38, found 5.96046e-08"),
        ({"lam": 0.01, "phi": 1e-30}, "phi: expected more than 6e-08"),
        ({"lam": 0.01, "phi": 1e-320}, "phi: expected more than 6e-08"),
        ({"lam": 1e-33, "phi": 1e-30}, "phi: expected more than 6e-08"),
        ({"lam": 0.01, "phi": 1e39}, "phi: expected .* at most 3e\\+38, found 1e\\+39"),
        ({"lam": 1e38, "phi": 0.1}, "lam: expected lambda/phi of at most 3e\\+38, .*found 1e\\+39"),
        ({"lam": 1e308, "phi": 0.1}, "lam: expected lambda/phi of at most 3e\\+38, .*found inf"),
        ({"lam": 1e39, "gradient": "exact"}, "lam: expected lambda/phi"),
        ({"reg": "nokland", "phi": 1e-8}, "phi: expected more than 6e-08"),
        ({"reg": "miyato", "lam": 1e308, "phi": 100.0}, "lam: expected lambda/phi"),
        ({"reg": "datagrad", "term": ("l2,0.1,0.1", "l1,0.01,1e-9")}, "phi: expected more than 6e-08"),
    ],
)
def test_what_float32_cannot_do_is_refused(given, named):
    with pytest.raises(NnliteError, match=f"^{named}"):
        Settings(**{"reg": "dgl1", **given})


@pytest.mark.parametrize("phi", [6e-8, 1e-7, 1.0])
def test_the_smallest_step_moves_a_white_pixel(phi):
    assert np.float32(1) + np.float32(phi) > 1
    assert Settings("dgl1", lam=0.01, phi=phi).phi == phi


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_either_loss_may_have_all_the_weight(alpha):
    (term,) = Settings("goodfellow", phi=0.25, alpha=alpha).terms
    assert term.weight == 1 - alpha


def test_datagrad_has_one_term():
    (term,) = Settings("dgl2", lam=0.02, phi=0.1).terms
    assert (term.penalty, term.lam, term.phi) == (L2, 0.02, 0.1)
    assert term.weight == pytest.approx(0.2)


def test_any_terms_of_equation_1_can_be_given():
    two = {"multitask": True, "gamma": 0.5}
    first, second = Settings("datagrad", term=("linf,0.01,0.1", "l2norm,2,exact,rotation"), **two).terms
    assert (first.penalty, first.lam, first.phi, first.task) == (LINF, 0.01, 0.1, "digit")
    assert (second.penalty, second.lam, second.phi, second.task) == (L2_NORM, 2, None, "rotation")
    with pytest.raises(NnliteError, match=r"term: expected the task digit, found 'rotation'; see --multitask"):
        Settings(reg="datagrad", term=("l1,0.01,0.1,rotation",))


# --- what lambda and phi mean: clean weight 1 - lam/phi, adversarial weight lam/phi


@pytest.mark.parametrize(
    ("reg", "given", "said"),
    [
        (
            "dgl1",
            {"lam": 0.01, "phi": 0.1},
            "0.9 clean + 0.1 adversarial gradient: Goodfellow et al. 2014 with alpha",
        ),
        ("dgl2", {"lam": 0.01, "phi": 0.1}, "0.9 clean + 0.1 adversarial gradient"),
        (
            "dgl1",
            {"lam": 0.1, "phi": 0.1},
            "0 clean + 1 adversarial gradient: adversarial samples only, as Nøkland",
        ),
        ("dgl1", {"lam": 0.7, "phi": 0.7}, "0 clean + 1 adversarial gradient: adversarial samples only"),
        ("dgl1", {"lam": 0.0, "phi": 0.1}, "1 clean + 0 adversarial gradient"),
        ("dgl1", {"lam": 0.01, "gradient": "exact"}, "1 clean + 0.01 exact penalty gradient"),
        ("datagrad", {"term": ("l1,0.01,0.1", "l2,3,exact")}, "0.9 clean + 0.1 adversarial + 3 exact penalty gradient"),
        # a term on the loss of another task takes nothing off the digits' loss
        (
            "datagrad",
            {"term": ("l1,0.01,0.1,digit", "l1,0.02,0.1,rotation"), "multitask": True, "gamma": 0.5},
            "0.9 clean + 0.1 adversarial + 0.2 adversarial",
        ),
        (
            "datagrad",
            {"term": ("l1,0.02,0.1,rotation",), "multitask": True, "gamma": 0.5},
            "1 clean + 0.2 adversarial",
        ),
        ("goodfellow", {"phi": 0.3, "alpha": 0.9}, "0.9 clean + 0.1 adversarial gradient"),
        ("szegedy", {"alpha": 0.25}, "0.25 clean + 0.75 adversarial gradient"),
        ("huang", {"phi": 0.3}, "0 clean + 1 adversarial gradient"),
        ("lyu", {"phi": 0.7, "p": "1"}, "0 clean + 1 adversarial gradient"),
        ("nokland", {"phi": 0.08}, "0 clean + 1 adversarial gradient"),
        ("miyato", {"lam": 0.5, "phi": 2.1}, "1 clean + 0.5 adversarial gradient"),
        ("pgd", {"phi": 0.1, "steps": 10}, "0 clean + 1 adversarial gradient"),
        ("trades", {"lam": 6.0, "phi": 0.1, "steps": 10}, "1 clean + 6 adversarial gradient"),
        ("none", {}, "no adversarial pass"),
        ("l1", {"lam": 0.1}, "no adversarial pass"),
        ("gu-rigazio", {"lam": 0.1}, "no adversarial pass"),
    ],
)
def test_what_the_numbers_mean_is_said(reg, given, said):
    words, warnings = mix(Settings(reg, **given))
    assert said in words
    assert words.startswith(METHODS[reg].source)
    assert ("Goodfellow" in words) == (reg == "goodfellow" or "Goodfellow" in said)
    assert warnings == []


@pytest.mark.parametrize(("lam", "clean", "shifted"), [(0.3, -2, 3), (0.15, -0.5, 1.5)])
def test_lambda_above_phi_warns_of_the_negative_weight(lam, clean, shifted):
    words, warnings = mix(Settings("dgl1", lam=lam, phi=0.1))
    assert words.endswith(f"mixes {clean} clean + {shifted} adversarial gradient")  # neither Goodfellow's nor Nøkland's
    (warning,) = warnings
    assert f"negative weight {clean}" in warning


@pytest.mark.parametrize(("phi", "warns"), [(1e-4, True), (1e-6, True), (2e-4, False)])
def test_a_tiny_phi_warns(phi, warns):
    _, warnings = mix(Settings("dgl1", lam=phi / 10, phi=phi))
    assert [f"phi = {phi:g} is so small" in warning for warning in warnings] == [True] * warns


def test_a_negative_weight_of_the_second_task_is_warned_of():
    two = {"multitask": True, "gamma": 0.5}
    _, warnings = mix(Settings("datagrad", term=("l1,0.1,0.1", "l1,0.3,0.1,rotation"), **two))
    assert warnings == [
        "the clean gradient of the rotation loss has the negative weight -2.5: lambda/phi is larger than gamma"
    ]
    assert mix(Settings("datagrad", term=("l1,0.04,0.1,rotation",), **two))[1] == []


def test_a_negative_weight_and_a_tiny_phi_are_both_warned_of(nnlite):
    _, warnings = mix(Settings("dgl1", lam=1e-3, phi=1e-4))
    assert ["negative weight -9" in warnings[0], "float32" in warnings[1]] == [True, True]
    told = nnlite("train", "--hidden", 4, "--epochs", 1, "--reg", "dgl1", "--lam", 1e-3, "--phi", 1e-4).stderr
    assert [f"Warning: {warning}" for warning in warnings] == [line for line in told.splitlines() if "Warning" in line]


# --- one home for the defaults, and one for the options


def test_alpha_steps_and_gamma_have_their_defaults_where_they_are_taken_and_not_given():
    assert with_defaults({"reg": "pgd", "phi": 0.1}) == {"reg": "pgd", "phi": 0.1, "steps": 10}
    assert with_defaults({"reg": "goodfellow", "phi": 0.1}) == {"reg": "goodfellow", "phi": 0.1, "alpha": 0.5}
    assert with_defaults({"reg": "goodfellow", "alpha": 0.0, "lam": None}) == {"reg": "goodfellow", "alpha": 0.0}
    assert with_defaults({"multitask": True}) == {"multitask": True, "gamma": 0.5}
    assert with_defaults({"multitask": True, "gamma": 0.1, "hidden": ()}) == {
        "multitask": True,
        "gamma": 0.1,
        "hidden": (),
    }
    for given in ({}, {"reg": "dgl1"}, {"multitask": False}, {"reg": "dgl9"}, {"reg": {"a": 1}}, {"reg": 10**5000}):
        assert with_defaults(given) == given


@pytest.mark.once
@pytest.mark.parametrize("reg", METHODS)
def test_with_the_examples_as_defaults_every_method_is_complete(reg):
    for gradient in ("finite", "exact") if METHODS[reg].has_exact else ("finite",):
        settings = Settings(**with_defaults({"reg": reg, "gradient": gradient}, EXAMPLES))
        assert settings.reg == reg


@pytest.mark.once
def test_every_command_has_the_same_defaults(nnlite, tmp_path, monkeypatch):
    monkeypatch.setitem(DEFAULTS, "alpha", 0.75)
    monkeypatch.setitem(DEFAULTS, "gamma", 0.25)
    wanted = Settings(
        "goodfellow", phi=0.1, alpha=0.75, multitask=True, gamma=0.25, hidden=(2,), epochs=1, batch_size=500
    )
    given = ("--reg", "goodfellow", "--phi", 0.1, "--multitask", "--hidden", 2, "--batch-size", 500)
    assert nnlite("train", *given, "--epochs", 1, "--name", "one").exit_code == 0
    assert load_run(tmp_path / "runs" / "digits" / "one").settings == wanted
    plan = nnlite("grid", *given, "--epochs", 1, "--dry-run", "--json").stdout
    (planned,) = (read_settings(one["settings"]) for one in json.loads(plan))
    assert planned == wanted
    timed = nnlite("bench", "step", *given, "--rounds", 3, "--threads", 1)
    assert timed.stdout.startswith("mt-goodfellow-phi0.1-alpha0.75, batch 500")


@pytest.mark.parametrize(
    ("command", "names"),
    [(train, FIELDS), (grid, FIELDS), (step, [*EXAMPLES, "reg", "gradient", "hidden", "batch_size", "multitask"])],
)
def test_a_setting_is_an_option_without_a_word_in_the_command(command, names):
    options = {option.name: option for option in command.params}
    for name in names:
        assert options[name].help.startswith(FIELDS[name].metadata["about"])


def test_every_number_of_a_method_has_an_example():
    assert {name for method in METHODS.values() for name in method.takes} == EXAMPLES.keys()


# --- files


FIRST = {
    "data": "mnist",
    "reg": "dgl1",
    "hidden": [784, 784],
    "lam": 0.01,
    "phi": 0.1,
    "lr": 0.2,
    "epochs": 3,
    "batch_size": 50,
    "multitask": True,
    "gamma": 0.25,
    "seed": 7,
    "device": "gpu",
}
OLD = {  # as version 0.1.0 writes them; a development version before it had fewer
    "reg": "datagrad",
    "lam": None,
    "phi": None,
    "alpha": None,
    "p": None,
    "term": ["l1,0.01,0.1", "l2,1,exact"],
    "gradient": "finite",
    "data": "digits",
    "hidden": [],
    "lr": 0.1,
    "epochs": 60,
    "batch_size": 100,
    "multitask": False,
    "gamma": None,
    "seed": 0,
    "device": "cpu",
}

LATER = {"steps": None, "label": None, "split": [0.7, 0.15, 0.15], "decay": 1.0, "patience": None}


def test_settings_of_older_versions_are_read():
    assert read_settings(OLD) == Settings("datagrad", term=("l1,0.01,0.1", "l2,1,exact"), hidden=())
    wanted = Settings(
        "dgl1", 0.01, 0.1, data="mnist", hidden=(784, 784), lr=0.2, epochs=3, batch_size=50, multitask=True, gamma=0.25,
        seed=7, device="gpu",
    )  # fmt: skip
    assert read_settings(FIRST) == wanted


def test_settings_are_written_as_version_0_1_0_wrote_them_and_those_that_came_later():
    assert json.loads(json.dumps(dataclasses.asdict(read_settings(OLD)))) == {**OLD, **LATER}
    assert [name for name in dataclasses.asdict(Settings()) if name not in LATER] == list(OLD)


@pytest.mark.parametrize("key", FIRST)
def test_a_file_without_one_of_the_first_settings_is_refused(key):
    assert FIRST.keys() == REQUIRED
    with pytest.raises(NnliteError, match=rf"^settings: expected an object of reg, .*unknown: \['{key}'\]"):
        read_settings({name: value for name, value in OLD.items() if name != key})


def test_an_unknown_setting_is_refused():
    with pytest.raises(NnliteError, match=r"^settings: expected .*unknown: \['momentum'\]"):
        read_settings({**OLD, "momentum": 0.9})
