"""ART on nnlite's nets: gradients against central differences, our attacks against ART's, and five of ART's by name."""

import importlib
import multiprocessing
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import strict_cupy
from nets import biased_mlp

from nnlite.attacks import NORMS, PGD, Noise
from nnlite.backend import to_host
from nnlite.errors import NnliteError
from nnlite.evaluation.named_attacks import NAMED_ATTACKS
from nnlite.evaluation.promises import check_crafted
from nnlite.gradcheck import away_from_kinks, numerical_gradient
from nnlite.init import generator
from nnlite.inputs import UNIT
from nnlite.interop.art import ArtAttack, art_classifier, evasion
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, mlp, stack
from nnlite.penalties import L1

ATTACKS = {  # with few steps
    "square": ArtAttack("square", queries=200, shape=(8, 8)),
    "autopgd": ArtAttack("autopgd", steps=20),
    "deepfool": ArtAttack("deepfool"),
    "carlini": ArtAttack("carlini"),
    "hopskipjump": ArtAttack("hopskipjump", steps=3),
}
PHI = {"linf": (0.0, 0.05, 0.1), "l2": (0.0, 0.5, 1.5)}

each_attack = pytest.mark.parametrize(
    "attack", [*ATTACKS.values(), ArtAttack("square", queries=200)], ids=[*ATTACKS, "square of rows"]
)


@pytest.fixture(scope="module")
def known(trained):
    """Return a small net that knows the digits, and 50 of their test images."""
    digits, net = trained
    return net, *digits.test.batch(slice(0, 50))


@pytest.fixture(params=[(6, 4), (6, 8, 4), (6, 8, 7, 5, 4)], ids=str)
def exact(request):
    """Return a float64 net of 0, 1 or 3 hidden layers, and five examples away from its kinks."""
    rng = np.random.default_rng(0)
    x, y = rng.random((5, 6)), rng.integers(0, 4, 5)
    return away_from_kinks(biased_mlp(list(request.param), rng), x), x, y


def craft(attack, net, x, y, phi=None, seed=0):
    """Let `attack` craft, and check what it crafted."""
    phi = PHI[attack.norm] if phi is None else phi
    crafted = attack.craft(net, x, y, phi, generator(seed, "attack"))
    host = SimpleNamespace(images=[to_host(image) for image in crafted.images])
    check_crafted(attack, to_host(x), phi, host, UNIT)
    return crafted


def accuracies(net, crafted, y):
    return [float((net.predict(image) == y).mean()) for image in crafted.images]


# The classifier


@pytest.mark.parametrize("shape", [None, (2, 3, 1)])
def test_class_gradients_are_central_differences(exact, shape):
    net, x, _ = exact
    numeric = [numerical_gradient(lambda a, k=k: float(net.logits(a)[:, k].sum()), x) for k in range(4)]
    found = art_classifier(net, shape=shape).class_gradient(x.reshape(5, *(shape or (6,))))
    assert found.shape == (5, 4, *(shape or (6,)))
    assert found.reshape(5, 4, 6) == pytest.approx(np.stack(numeric).reshape(4, 5, 6).swapaxes(0, 1), rel=1e-6)


def test_class_gradients_of_probabilities_are_central_differences_of_the_softmax(exact):
    net, x, _ = exact
    classifier = art_classifier(net, probabilities=True)
    found, numeric = classifier.class_gradient(x), []
    for k in range(4):
        numeric.append(numerical_gradient(lambda a, k=k: float(classifier.predict(a)[:, k].sum()), x))
    assert found == pytest.approx(np.stack(numeric).reshape(4, 5, 6).swapaxes(0, 1), rel=1e-6, abs=1e-9)
    likelihood = np.exp(net.logits(x))
    assert classifier.predict(x) == pytest.approx(likelihood / likelihood.sum(axis=1, keepdims=True), rel=1e-12)


@pytest.mark.parametrize("label", [2, np.int64(2), [0, 1, 2, 3, 0], np.array([3, 3, 1, 0, 2])], ids=str)
def test_the_gradient_of_one_class_is_a_row_of_all(exact, label):
    net, x, _ = exact
    classifier = art_classifier(net, shape=(2, 3, 1))
    images = x.reshape(5, 2, 3, 1)
    found = classifier.class_gradient(images, label)
    assert found.shape == (5, 1, 2, 3, 1)
    assert found[:, 0] == pytest.approx(classifier.class_gradient(images)[np.arange(5), label], rel=1e-12)


@pytest.mark.parametrize("one_hot", [False, True])
def test_loss_gradients_are_central_differences_of_the_loss(exact, one_hot):
    net, x, y = exact
    classifier, images = art_classifier(net, shape=(2, 3, 1)), x.reshape(5, 2, 3, 1)
    labels = np.eye(4)[y] if one_hot else y
    numeric = numerical_gradient(lambda a: classifier.compute_loss(a, labels, reduction="sum"), images)
    found = classifier.loss_gradient(images, labels)
    assert found.shape == images.shape
    assert found.ravel() == pytest.approx(numeric, rel=1e-6)


def test_the_loss_is_minus_the_log_of_the_softmax(exact):
    net, x, y = exact
    classifier = art_classifier(net)
    likelihood = np.exp(classifier.predict(x))
    expected = -np.log(likelihood[np.arange(5), y] / likelihood.sum(axis=1))
    assert classifier.compute_loss(x, y) == pytest.approx(expected, rel=1e-12)
    assert classifier.compute_loss(x, y, reduction="mean") == pytest.approx(expected.mean(), rel=1e-12)


def test_activations_are_what_each_layer_gives():
    net = Network(
        (Dense(np.array([[1.0, -1.0]]), np.array([0.0, 1.0])), ReLU(), Dense(np.eye(2), np.array([5.0, 6.0])))
    )
    classifier = art_classifier(net)
    found = [classifier.get_activations(np.array([[3.0]]), layer, batch_size=1).tolist() for layer in range(3)]
    assert found == [[[3, -2]], [[3, 0]], [[8, 6]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_classifier_answers_in_the_type_of_its_net(dtype):
    x, y = np.random.default_rng(1).random((4, 6)), np.array([0, 1, 2, 0])
    on = art_classifier(mlp((6, 5, 3), np.random.default_rng(0), dtype))
    found = [on.predict(x), on.compute_loss(x, y), on.loss_gradient(x, y), on.class_gradient(x)]
    assert [array.dtype for array in found] == [dtype] * 4


def test_probabilities_have_the_loss_and_the_loss_gradient_of_logits(exact):
    net, x, y = exact
    logits, probabilities = art_classifier(net), art_classifier(net, probabilities=True)
    np.testing.assert_array_equal(probabilities.compute_loss(x, y), logits.compute_loss(x, y))
    np.testing.assert_array_equal(probabilities.loss_gradient(x, y), logits.loss_gradient(x, y))


def test_attacks_that_ask_for_probabilities_run(known):
    net, x, y = known
    right = np.flatnonzero(net.predict(x) == y)[:5]
    x, y = x[right], y[right]
    simba = evasion.SimBA(
        art_classifier(net, shape=(8, 8, 1), probabilities=True), epsilon=0.3, freq_dim=8, verbose=False
    )
    found = simba.generate(x.reshape(-1, 8, 8, 1), np.eye(10)[y]).reshape(-1, 64)  # it takes no numbers of classes
    assert (net.predict(found) != y).any()
    vat = evasion.VirtualAdversarialMethod(art_classifier(net, probabilities=True), eps=2.0, verbose=False)
    assert (net.predict(vat.generate(x, y)) != y).any()
    with pytest.raises(ValueError, match="requires an estimator predicting probabilities"):
        evasion.SimBA(art_classifier(net, shape=(8, 8, 1))).generate(x.reshape(-1, 8, 8, 1), np.eye(10)[y])


def test_autoattack_takes_the_attacks_that_it_is_given(known, monkeypatch):
    monkeypatch.setitem(sys.modules, "multiprocess", multiprocessing)  # which it asks for even where it starts none
    net, x, y = known
    classifier, usual = art_classifier(net, shape=(8, 8, 1)), {"eps": 0.1, "verbose": False}
    attacks = [
        evasion.AutoProjectedGradientDescent(classifier, eps_step=0.05, max_iter=20, nb_random_init=1, **usual),
        evasion.SquareAttack(classifier, max_iter=100, p_init=0.5, **usual),
    ]
    found = evasion.AutoAttack(classifier, eps=0.1, attacks=attacks).generate(x.reshape(-1, 8, 8, 1), y)
    assert abs(found.reshape(-1, 64) - x).max() <= 0.1 + 1e-6
    assert (net.predict(found.reshape(-1, 64)) == y).mean() < (net.predict(x) == y).mean()


def test_what_art_cannot_do_is_an_error():
    net = mlp((6, 3), np.random.default_rng(0))
    x, y = np.zeros((1, 6), np.float32), np.array([0])
    with pytest.raises(NnliteError, match=r"use nnlite\.training\.loop\.train"):
        art_classifier(net).fit(x, y)
    with pytest.raises(NnliteError, match=r"use nnlite\.training\.runs"):
        art_classifier(net).save("net")
    with pytest.raises(NnliteError, match="expected 6 pixels, as many as the net sees, found"):
        art_classifier(net, shape=(2, 2, 1))
    with pytest.raises(NnliteError, match="expected one net, found a stack"):
        art_classifier(stack([net, net]))
    with pytest.raises(NnliteError, match="expected one net, found a stack"):
        ArtAttack("autopgd").craft(stack([net, net]), x, y, (0.1,), np.random.default_rng(0))


# Our attacks against ART's


def test_our_fgsm_is_art_s(known):
    net, x, y = known
    theirs = evasion.FastGradientMethod(art_classifier(net), eps=0.1).generate(x, y)
    ours = Noise(L1, clip=True).craft(net, x, y, (0.1,), np.random.default_rng(0)).images[0]
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("norm", "phi", "clip"), [("linf", 0.1, True), ("linf", 0.1, False), ("l2", 1.0, False), ("l2", 0.5, True)]
)
def test_our_pgd_is_art_s(known, norm, phi, clip):
    net, x, y = known
    theirs = art_pgd(net, norm, phi, clip).generate(x, y)
    ours = PGD(norm, steps=20, stride=0.125, clip=clip).craft(net, x, y, (phi,), np.random.default_rng(0)).images[0]
    assert abs(ours - x).max() > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


def art_pgd(net, norm, phi, clip):
    """Return ART's PGD of 20 steps of phi / 8, from the image itself."""
    return evasion.ProjectedGradientDescent(
        art_classifier(net, clip=(0.0, 1.0) if clip else None),
        norm={"linf": np.inf, "l2": 2}[norm],
        eps=phi,
        eps_step=0.125 * phi,
        max_iter=20,
        verbose=False,
    )


# ART's attacks as ours


def test_each_one_has_a_row_for_the_command_line():
    assert list(ATTACKS) == [name for name, row in NAMED_ATTACKS.items() if row.extra == "interop"]
    assert [ArtAttack(name).norm for name in ATTACKS] == ["linf", "linf", "l2", "l2", "l2"]


@each_attack
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_attack_fools_the_net_and_keeps_its_word(known, attack, dtype):
    net, x, y = known
    net, x = net.astype(dtype), x.astype(dtype)
    crafted = craft(attack, net, x, y)
    assert [image.dtype for image in crafted.images] == [dtype] * 3
    np.testing.assert_array_equal(crafted.images[0], x)  # phi = 0
    clean, some, many = accuracies(net, crafted, y)
    assert clean > 0.9
    assert clean - 0.05 > some > many
    assert many < 0.7


@pytest.mark.parametrize("name", ["deepfool", "carlini", "hopskipjump"])
def test_the_smallest_noise_is_used_where_it_is_no_longer_than_phi(known, name):
    net, x, y = known
    crafted = craft(ATTACKS[name], net, x, y)
    length = NORMS["l2"](crafted.smallest - x)
    assert not crafted.failed.any()
    assert (net.predict(crafted.smallest) != y).all()
    assert ((length == 0) == (net.predict(x) != y)).all()
    for phi, image in zip(PHI["l2"], crafted.images, strict=True):
        np.testing.assert_array_equal(image, np.where((length <= phi)[:, None], crafted.smallest, x))


def test_on_a_linear_net_the_smallest_noise_is_known():
    # Noise w (w_k - w_y) that just reaches class k has length (z_y - z_k) / |w_k - w_y|; pixels stay off their limits.
    rng = np.random.default_rng(0)
    x, weights = rng.uniform(0.4, 0.6, (20, 16)), rng.standard_normal((16, 3))
    net = Network((Dense(weights, np.zeros(3)),))
    y, logits = net.predict(x), net.logits(x)
    gaps = logits[np.arange(20), y][:, None] - logits
    slopes = np.linalg.norm(weights.T[y][:, None] - weights.T, axis=-1)
    shortest = np.where(gaps > 0, gaps / np.where(slopes > 0, slopes, 1), np.inf).min(axis=1)
    for name in ("deepfool", "carlini", "hopskipjump"):
        found = NORMS["l2"](craft(ArtAttack(name), net, x, y).smallest - x) / shortest
        assert (found >= 1).all(), name
        assert (found < 1.02).all(), name


def test_carlini_is_not_held_up_by_black_pixels(known):
    net, x, y = known
    deepfool, carlini = (NORMS["l2"](craft(ATTACKS[name], net, x, y).smallest - x) for name in ("deepfool", "carlini"))
    assert (x == 0).mean() > 0.4
    assert carlini.mean() < 1.05 * deepfool.mean()


def test_a_search_that_finds_nothing_has_failed(known, monkeypatch):
    net, x, y = known
    hasty = craft(ArtAttack("deepfool", steps=1), net, x, y)
    assert 0 < hasty.failed.sum() < 50
    assert ((net.predict(hasty.smallest) == y) == hasty.failed).all()
    np.testing.assert_array_equal(hasty.smallest[hasty.failed], x[hasty.failed])

    constant = mlp((64, 10), np.random.default_rng(0)).map(np.zeros_like)
    constant.layers[0].b[7] = 1
    monkeypatch.delattr(evasion.HopSkipJump, "generate")  # without a start it would go on by chance, unseeded
    for name in ("deepfool", "carlini", "hopskipjump"):
        crafted = craft(ATTACKS[name], constant, x, y)
        assert (crafted.failed == (y == 7)).all()
        assert all((image == x).all() for image in crafted.images)


@each_attack
def test_the_seed_decides_and_the_global_generator_is_left_alone(known, attack, capfd):
    net, x, y = known
    x, y = x[:8], y[:8]
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random(4).tolist()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    first = craft(attack, net, x, y).images[-1]
    assert np.random.random(4).tolist() == expected  # noqa: NPY002
    np.testing.assert_array_equal(craft(attack, net, x, y).images[-1], first)
    other = craft(attack, net, x, y, seed=1).images[-1]
    assert (other != first).any() == (attack.name not in ("deepfool", "carlini"))  # these two draw nothing
    assert capfd.readouterr() == ("", "")


@each_attack
def test_the_other_phi_do_not_matter(known, attack):
    net, x, y = known
    x, y, phi = x[:8], y[:8], PHI[attack.norm]
    alone = craft(attack, net, x, y, phi[-1:]).images[-1]
    np.testing.assert_array_equal(alone, craft(attack, net, x, y, phi).images[-1])


@each_attack
def test_images_that_the_net_gets_wrong_stay_as_they_are(known, attack):
    net, x, _ = known
    x = x[:8]
    wrong = (net.predict(x) + 1) % 10
    crafted = craft(attack, net, x, wrong)
    assert all((image == x).all() for image in crafted.images)
    assert crafted.failed is None or not crafted.failed.any()


def test_square_computes_less_than_half_of_what_art_asks_for_and_finds_the_same(known, monkeypatch):
    net, x, y = known
    right = net.predict(x) == y
    x, y, seen = x[right], y[right], []
    logits = Network.logits
    monkeypatch.setattr(Network, "logits", lambda self, x: seen.extend(map(bytes, x)) or logits(self, x))
    found = craft(ATTACKS["square"], net, x, y, (0.1,)).images[0]
    computed = len(seen)

    seen.clear()
    np.random.seed(int(generator(0, "attack").integers(2**32)))  # noqa: NPY002
    attack = evasion.SquareAttack(art_classifier(net, shape=(8, 8, 1)), eps=0.1, max_iter=200, verbose=False)
    plain = attack.generate(x.reshape(-1, 8, 8, 1), y).reshape(-1, 64)
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-6)
    assert len(set(seen)) <= computed < 0.5 * len(seen)


def test_square_takes_any_shape_of_image():
    net = mlp((24, 8, 3), np.random.default_rng(0))
    x = np.random.default_rng(1).random((10, 24), dtype=np.float32)
    for attack in (ATTACKS["square"], ArtAttack("square", shape=(2, 2, 3, 2))):
        with pytest.raises(NnliteError, match=r"expected \(height, width, channels\) of 24 pixels"):
            craft(attack, net, x, net.predict(x))
    for shape in ((2, 4, 3), (4, 6), (4, 6, 1), (1, 24, 1), (24,)):
        crafted = craft(ArtAttack("square", queries=50, shape=shape), net, x, net.predict(x))
        assert (crafted.images[-1] != x).any()


@pytest.mark.parametrize("features", [1, 2, 9, 16])
def test_rows_are_no_images_to_square_even_of_a_square_number_of_features(features, monkeypatch):
    net = biased_mlp([features, 8, 3], np.random.default_rng(0)).astype(np.float32)
    net.layers[-1].b[0] += 10  # it is never fooled
    x = np.random.default_rng(1).random((1, features), dtype=np.float32)
    seen, logits = [], Network.logits
    monkeypatch.setattr(Network, "logits", lambda self, x: seen.extend(x.copy()) or logits(self, x))
    craft(ArtAttack("square", queries=300), net, x, np.zeros(1, np.int64), (0.05,))
    rows = np.array(seen)
    apart = (rows[:, None] != rows).sum(axis=-1)
    stripes = np.flatnonzero(apart[0] == features)[0]  # the start: a random sign for each feature
    assert all(apart[k, :k].min() <= 1 for k in range(stripes + 1, len(rows)))  # then one at a time
    assert (abs(rows - x) <= 0.05 + 1e-6).all()
    assert (rows[stripes + 1 :] != rows[stripes]).any(axis=0).all()  # each of them, the last one, too


def test_a_net_on_a_gpu_is_attacked_on_the_host(known, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    net, x, y = known
    for name in ("autopgd", "deepfool"):
        expected = craft(ATTACKS[name], net, x, y)
        found = craft(ATTACKS[name], net.to("gpu"), strict_cupy.asarray(x), strict_cupy.asarray(y))
        assert all(isinstance(image, strict_cupy.ndarray) for image in found.images)
        for image, same in zip(found.images, expected.images, strict=True):
            np.testing.assert_array_equal(to_host(image), same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "fgsm"}, "attack: expected one of square, autopgd, .*, found 'fgsm'"),
        ({"name": "square", "steps": 3}, "steps: square has no such option; it takes queries and restarts"),
        ({"name": "deepfool", "restarts": 2}, "restarts: deepfool has no such option; it takes steps"),
        ({"name": "square", "queries": 0}, "queries: expected an integer of at least 1, found 0"),
        ({"name": "autopgd", "steps": 1.5}, "steps: expected an integer of at least 1, found 1.5"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(NnliteError, match=message):
        ArtAttack(**options)


# With and without ART


def test_art_is_imported_without_a_warning():
    # A fresh interpreter: this one has imported ART already.
    command = [sys.executable, "-W", "error", "-c", "import nnlite.interop.art"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


class Broken:
    @property
    def evasion(self):
        raise RuntimeError("made for another NumPy")


@pytest.mark.parametrize(
    ("found", "reason"),
    [(None, "ModuleNotFoundError: import of art.* halted"), (Broken(), "RuntimeError: made for another NumPy")],
)
def test_without_art_the_error_says_what_to_install(monkeypatch, found, reason):
    for name in [name for name in sys.modules if name.partition(".")[0] == "art"]:
        monkeypatch.setitem(sys.modules, name, found)
    monkeypatch.delitem(sys.modules, "nnlite.interop.art")
    with pytest.raises(
        NnliteError, match=rf"{reason}.*install it with pip install '\.\[interop\]' in a clone of nnlite"
    ):
        importlib.import_module("nnlite.interop.art")
