"""The table of methods: what each takes, what its runs are called, and what lambda and phi mean."""

import pytest

from nnlite.errors import NnliteError
from nnlite.methods import METHODS, mix
from nnlite.penalties import L1, L2


def test_the_table_holds_the_papers_methods():
    assert {name: (row.on_gradient, row.on_weights) for name, row in METHODS.items()} == {
        "none": (None, None),
        "l1": (None, L1),
        "l2": (None, L2),
        "dgl1": (L1, None),
        "dgl2": (L2, None),
    }


@pytest.mark.parametrize(
    ("reg", "lam", "phi", "name"),
    [
        ("none", None, None, "rect"),
        ("l1", 0.001, None, "l1-lam0.001"),
        ("l2", 1e-5, None, "l2-lam1e-05"),
        ("dgl1", 0.01, 0.1, "dgl1-lam0.01-phi0.1"),
        ("dgl2", 0.0, 5.0, "dgl2-lam0-phi5"),
    ],
)
def test_a_run_is_called_by_its_method_and_numbers(reg, lam, phi, name):
    assert METHODS[reg].run_name(lam, phi) == name


@pytest.mark.parametrize(
    ("reg", "lam", "phi", "named"),
    [
        ("dgl1", None, 0.1, "lam"),
        ("dgl1", 0.01, None, "phi"),
        ("l1", None, None, "lam"),
        ("l1", 0.01, 0.1, "phi"),
        ("none", 0.0, None, "lam"),
        ("none", None, 0.1, "phi"),
    ],
)
def test_a_method_takes_what_it_uses_and_nothing_else(reg, lam, phi, named):
    with pytest.raises(NnliteError, match=f"^{named}: method {reg} "):
        METHODS[reg].terms(lam, phi)


@pytest.mark.parametrize("reg", ["none", "l1", "l2"])
def test_without_a_penalty_on_the_gradient_there_is_no_term(reg):
    assert METHODS[reg].terms(0.01 if METHODS[reg].uses_lam else None, None) == ()


def test_datagrad_has_one_term():
    (term,) = METHODS["dgl2"].terms(0.02, 0.1)
    assert (term.penalty, term.lam, term.phi) == (L2, 0.02, 0.1)
    assert term.weight == pytest.approx(0.2)


# --- what lambda and phi mean: clean weight 1 - lam/phi, adversarial weight lam/phi


def test_the_papers_setting_is_goodfellows_alpha_of_0_9():
    words, warning = mix(METHODS["dgl1"], 0.01, 0.1)
    assert "0.9 clean + 0.1 adversarial" in words
    assert "Goodfellow et al. 2014 with alpha = 0.9" in words
    assert warning is None


def test_goodfellow_is_named_for_l1_only():
    words, warning = mix(METHODS["dgl2"], 0.01, 0.1)
    assert "0.9 clean + 0.1 adversarial" in words
    assert "Goodfellow" not in words
    assert warning is None


@pytest.mark.parametrize("size", [0.1, 0.3, 0.7])
def test_lambda_equal_to_phi_is_adversarial_samples_only(size):
    words, warning = mix(METHODS["dgl1"], size, size)
    assert "mixes 0 clean + 1 adversarial" in words
    assert "adversarial samples only" in words
    assert warning is None


def test_lambda_0_is_clean_only():
    words, warning = mix(METHODS["dgl1"], 0.0, 0.1)
    assert "mixes 1 clean + 0 adversarial" in words
    assert "Goodfellow" not in words
    assert warning is None


def test_lambda_above_phi_warns_of_the_negative_weight():
    words, warning = mix(METHODS["dgl1"], 0.3, 0.1)
    assert "mixes -2 clean + 3 adversarial" in words
    assert "negative weight -2" in warning


@pytest.mark.parametrize(("phi", "warns"), [(1e-4, True), (1e-6, True), (2e-4, False)])
def test_a_tiny_phi_warns(phi, warns):
    _, warning = mix(METHODS["dgl1"], phi / 10, phi)
    assert (warning is not None) == warns
    assert not warns or f"phi = {phi:g}" in warning


@pytest.mark.parametrize(("reg", "lam"), [("none", None), ("l1", 0.001), ("l2", 0.001)])
def test_other_methods_mix_nothing(reg, lam):
    words, warning = mix(METHODS[reg], lam, None)
    assert "no adversarial pass" in words
    assert warning is None
