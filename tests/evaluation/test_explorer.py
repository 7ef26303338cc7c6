"""The page of the explorer as a text: what is in it, how large it may be, and what it refuses."""

import json
import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest

from nnlite.attacks import Noise
from nnlite.datasets.samples import Dataset, check_samples
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy, evaluate_attack
from nnlite.evaluation.certifying import CertifyOptions, bracket
from nnlite.evaluation.explorer import ExplorerOptions, explorer_page
from nnlite.evaluation.radii import find_radii
from nnlite.layers import ReLU
from nnlite.network import Network, mlp, stack
from nnlite.penalties import L1

pytestmark = pytest.mark.once


class Leaky(ReLU):
    """A layer that the page does not know."""


FEW = ExplorerOptions(phi=0.1, images=4, examples=20)


def content(page):
    """Return the JSON in a page."""
    return json.loads(re.search('<script id="content" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def array(text, dtype):
    return np.frombuffer(b64decode(text), dtype)


@pytest.fixture(scope="module")
def made(trained):
    """A page of the small net, what it was made of, and what is in it."""
    data, net = trained
    parts = []
    page = explorer_page({"rect": net}, data, FEW, notes={"rect": "plain"}, on_part=lambda *part: parts.append(part))
    return data, net, page, content(page), parts


def test_the_page_holds_the_images_and_the_net(made):
    data, net, _, found, _ = made
    shown = data.test[np.array(found["rows"])]
    assert array(found["images"]["bytes"], np.uint8).tolist() == shown.images.ravel().tolist()
    assert (found["images"]["white"], found["labels"], found["box"]) == (16, shown.labels.tolist(), [0.0, 1.0])
    expected = np.concatenate([part.ravel() for layer in net.layers[::2] for part in (layer.W, layer.b)])
    np.testing.assert_array_equal(array(found["nets"][0]["weights"], "<f4"), expected)
    assert found["nets"][0]["sizes"] == list(net.sizes)
    assert found["nets"][0]["layers"] == ["dense", "relu", "dense", "relu", "dense"]
    assert found["nets"][0]["note"] == "plain"


def test_its_figures_are_those_of_certify_and_attack(made):
    data, net, _, found, _ = made
    radii = find_radii(net, data.test[np.array(found["rows"])], CertifyOptions(examples=None))
    np.testing.assert_allclose(found["nets"][0]["proven"], radii.proven, atol=1e-6)
    np.testing.assert_allclose(found["nets"][0]["broken"], radii.broken, atol=1e-6)
    curve = found["nets"][0]["curve"]
    assert curve["phi"] == pytest.approx(np.arange(11) / 100)
    known = bracket(net, data.test, CertifyOptions(phi=tuple(curve["phi"]), examples=20))
    assert curve["worst"] == pytest.approx(known.accuracy["worst"])
    assert curve["proven"] == pytest.approx(known.accuracy["proven"])
    samples = data.test[known.rows]
    step = evaluate_attack(net, {"net": net}, samples, Noise(L1, clip=True), curve["phi"]).accuracy["net"]
    assert curve["step"] == pytest.approx(step)
    assert curve["step"][0] == accuracy(net, samples)


def test_progress_rises_to_its_end(made):
    names, done, totals = zip(*made[4], strict=True)
    assert set(names) == {"rect"}
    assert list(done) == sorted(done)
    assert (done[0], done[-1], set(totals)) == (0, 2, {2})


def test_the_page_asks_no_address_for_anything(made):
    page = made[2]
    assert "default-src 'none'" in page
    assert re.findall(r"https?://[^\"']*", page) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    assert not re.search(r"<(link|img|iframe)|@import|url\(|fetch\(|XMLHttp|src=", page)


def test_names_end_no_script(trained):
    data, net = trained
    name = "</script><script>alert(1)</script>"
    page = explorer_page({name: net}, replace(data, name=name), ExplorerOptions(phi=0.1, images=1, examples=1))
    assert (page.count("<script"), page.count("</script")) == (2, 2)
    assert content(page)["nets"][0]["name"] == name


def test_a_table_has_its_features_and_its_own_box():
    rng = np.random.default_rng(0)
    samples = check_samples(rng.random((40, 3), dtype=np.float32), np.arange(40) % 2)
    data = Dataset("table", samples[:20], samples[20:30], samples[30:], (3,), 2)
    found = content(explorer_page({"net": mlp((3, 4, 2), rng)}, data, ExplorerOptions(images=10, examples=10)))
    shown = array(found["images"]["floats"], "<f4").reshape(10, 3)
    np.testing.assert_array_equal(shown, data.test.images)
    assert (found["data"]["samples"], found["data"]["shape"]) == ("rows", [3])


@pytest.mark.parametrize(
    ("nets", "words"),
    [
        (lambda net: {}, "expected one to 4, found 0"),
        (lambda net: dict.fromkeys("abcde", net), "expected one to 4, found 5"),
        (lambda net: {"a": stack([net, net])}, "a: expected one net, found a stack"),
        (lambda net: {"a": mlp((64, 8, 3), np.random.default_rng(0))}, "a: expected a net of 64 inputs and 10 classes"),
        (lambda net: {"a": Network((net.layers[0], Leaky(), net.layers[4]))}, "Dense and ReLU .* found Leaky"),
        (lambda net: {"a": mlp((64, 900, 10), np.random.default_rng(0))}, "at most 300 kB, found .*; .*--large"),
        (lambda net: {"a": mlp((64, 9000, 10), np.random.default_rng(0))}, "at most 300 kB, .* or fewer images$"),
    ],
)
def test_what_no_page_can_show_is_refused_before_the_work(trained, nets, words):
    data, net = trained
    with pytest.raises(NnliteError, match=words):
        explorer_page(nets(net), data, FEW, on_part=lambda *part: pytest.fail("worked before the error"))


@pytest.mark.parametrize("options", [{"phi": 0}, {"phi": 1.5}, {"images": 0}, {"examples": 0}, {"seed": -1}])
def test_numbers_that_mean_nothing_are_refused(options):
    with pytest.raises(NnliteError):
        ExplorerOptions(**options)
