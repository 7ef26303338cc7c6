"""Say whether an exercise is solved, and if not, what is missing.

    python docs/exercises/check.py 3

A check takes the module that was filled in. It raises UnsolvedError with what to look at, or returns what the solution
shows.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from nnlite import L1, L2, Dense, Loss, Network, Term, generator, mlp, sgd_step, weighted_passes
from nnlite.attacks import R1, Noise
from nnlite.certify import is_proven
from nnlite.datasets import load
from nnlite.evaluation.accuracy import accuracy
from nnlite.gradcheck import check_penalty, relative_error
from nnlite.training import Settings, train

HERE = Path(__file__).parent


class UnsolvedError(Exception):
    """What is missing, or wrong."""


def expect(condition, message):
    """Raise UnsolvedError with the message unless the condition holds."""
    if not condition:
        raise UnsolvedError(message)


def check(number, folder=HERE):
    """Return what the solution of an exercise in `folder` shows; UnsolvedError says why it is none."""
    path = Path(folder) / f"exercise_{number}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return CHECKS[number](module)
    except NotImplementedError as missing:
        raise UnsolvedError(str(missing)) from None


def power(solution):
    """A penalty: by hand, against central differences, in a net, and in training."""
    R, rng = solution.POWER, np.random.default_rng(0)
    a = np.array([[4.0, -9.0, 0.0], [1.0, 1.0, -1.0]])
    before = a.copy()
    value, gradient = R.value(a), R.gradient(a)
    expect((a == before).all(), "the array that came in was changed; make a new one")
    expect(np.shape(value) == (2,), f"value: expected one number for each row, (2,), found {np.shape(value)}")
    expect(np.allclose(value, [35, 3]), f"value: of (4, -9, 0) it is 8 + 27 + 0 = 35, found {value[0]:g}")
    expect(np.shape(gradient) == a.shape, f"gradient: expected the shape {a.shape}, found {np.shape(gradient)}")
    expect(np.isfinite(gradient).all(), "gradient: not finite where a is 0")
    expect(np.allclose(gradient[0], [3, -4.5, 0]), f"gradient: of (4, -9, 0) it is (3, -4.5, 0), found {gradient[0]}")
    single = R.gradient(a.astype(np.float32)).dtype
    expect(single == np.float32, f"gradient: float32 came in, and {single} out; training would mix the two")

    net, x, y = mlp((4, 8, 3), rng, np.float64), rng.random((30, 4)), rng.integers(0, 3, 30)
    expect(all(one.passed for one in check_penalty(net, x, y, R)), "value and gradient do not belong together in a net")

    def after_training(terms):
        trained = net.copy()
        for _ in range(200):
            sgd_step(trained, trained.gradients(weighted_passes(trained, x, y, terms)), 0.5)
        return R.value(trained.run(x, y).dx).mean()

    plain, ours = after_training([]), after_training([Term(R, 0.1, 0.1)])
    expect(ours < plain, f"trained on it, a net has R = {ours:.3f}, and {plain:.3f} without; it should be less")
    return f"a small net trained on it has R = {ours:.3f}, and {plain:.3f} without"


def softplus(solution):
    """A tangent: against central differences of what it is the tangent of, for large inputs, and in a net."""
    layer, rng = solution.Softplus(), np.random.default_rng(0)
    x, dy, change = rng.normal(0, 2, (3, 5, 4))
    h = 1e-5
    forward = (layer.forward(x + h * change) - layer.forward(x - h * change)) / (2 * h)
    backward = (layer.backward(x + h * change, dy) - layer.backward(x - h * change, dy)) / (2 * h)
    error = relative_error(layer.tangent(x, change), forward)
    expect(error < 1e-8, f"tangent: off by {error:.2g} from central differences of forward along change")
    error = relative_error(layer.backward_tangent(x, dy, change), backward)
    expect(error < 1e-8, f"backward_tangent: off by {error:.2g} from central differences of backward along change")
    far, ones = np.array([[-1000.0, 1000.0]]), np.ones((1, 2))
    with np.errstate(all="ignore"):
        found = np.array([layer.tangent(far, ones), layer.backward_tangent(far, ones, ones)])
    expect(np.allclose(found[:, 0], [[0, 1], [0, 0]]), "at x = -1000 and 1000: expected slopes 0 and 1, no curvature")
    first, _, last = mlp((4, 6, 3), rng, np.float64).layers
    checks = check_penalty(Network((first, layer, last)), rng.random((6, 4)), rng.integers(0, 3, 6), L2)
    expect(all(one.passed for one in checks), "in a net, the exact update of a penalty is not its gradient")
    return f"the exact update through it is right to {max(one.error for one in checks):.1e}"


def broken(solution):
    """A fault of 0.1 %, four faults to find, and sound nets, one of them with a ReLU close to its kink."""
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 4)), rng.integers(0, 3, 6)
    first, relu, last = mlp((4, 5, 3), rng, np.float64).layers
    ours, sound = solution.Broken(first.W, first.b), Dense(first.W, first.b)
    seen, dy = x, rng.normal(size=(6, 5))
    found, right = ours.gradients(seen, dy), sound.gradients(seen, dy)
    expect(np.allclose(found["W"], 1.001 * right["W"], rtol=1e-9), "Broken: expected dW times 1.001")
    expect((found["b"] == right["b"]).all(), "Broken: db should stay as it is")
    moved, unspoiled = (layer.gradients(seen, dy, x)["W"] for layer in (ours, sound))
    expect(np.allclose(moved, 1.001 * unspoiled), "Broken: its gradients with `change` should be spoiled alike")

    shift = first.forward(x)[0, 0] - 1e-5  # the first example sees the first ReLU just above its kink
    close = Network((Dense(first.W, first.b - np.eye(5)[0] * shift), relu, last))
    expect(not solution.sees(Network((first, relu, last)), x, y), "sees: a false alarm, on a sound net")
    expect(not solution.sees(close, x, y), "sees: a false alarm, on a sound net with a ReLU close to its kink")
    for name, what in FAULTS.items():
        faulty = Network((first, relu, _spoiled(name)(last.W, last.b)))
        expect(solution.sees(faulty, x, y), f"sees: missed a fault of 0.1 % in {what}")

    digits, own = load("digits"), mlp((64, 32, 10), generator(0, "weights"))
    spoiled = Network((solution.Broken(own.layers[0].W, own.layers[0].b), *own.layers[1:]))
    ends = [accuracy(train(Settings(epochs=10), digits, net=net).net, digits.test) for net in (own, spoiled)]
    return f"on the digits a sound net gets {ends[0]:.1f} % and a broken one {ends[1]:.1f} %: training does not tell"


FAULTS = {
    "W": "the weight gradient",
    "b": "the bias gradient",
    "backward": "the error carried back to the inputs",
    "tangent": "the tangent",
}


def _spoiled(name):
    """Return a class of Dense layers with a fault of 0.1 % in one place."""

    class Spoiled(Dense):
        def gradients(self, x, dy, change=None):
            sound = super().gradients(x, dy, change)
            return {**sound, name: 1.001 * sound[name]} if name in sound else sound

        def backward(self, x, dy):
            return super().backward(x, dy) * (1.001 if name == "backward" else 1)

        def tangent(self, x, change):
            return super().tangent(x, change) * (1.001 if name == "tangent" else 1)

    return Spoiled


def float32(solution):
    """The trap at one example, the way out against float64, and what an attack makes of both."""
    logits, y = np.array([[25, 0, -1], [0.5, 1, 0], [-90, 3, 90]], np.float32), np.array([0, 1, 2])
    naive, careful = solution.naive(logits, y), solution.careful(logits, y)
    for name, error in (("naive", naive), ("careful", careful)):
        expect(np.shape(error) == (3, 3), f"{name}: expected the shape of the logits, found {np.shape(error)}")
        expect(error.dtype == np.float32, f"{name}: expected float32 as it came in, found {error.dtype}")
        expect(np.isfinite(error).all(), f"{name}: not finite for logits of 90; subtract the largest one")
        expect(np.allclose(error[1].sum(), 0, atol=1e-6) and error[1, 1] < 0, f"{name}: expected softmax - onehot")
    expect(naive[0, 0] == 0 and naive[0, 1] > 0, "naive: the sure example should have lost its true class's error here")
    exp = np.exp(logits[0].astype(np.float64))
    true, error = -exp[1:].sum() / exp.sum(), careful[0, 0]
    expect(np.isclose(error, true, rtol=1e-5, atol=0), f"careful: expected {true:.3g}, found {error:.3g}")

    digits = load("digits")
    net = train(Settings(hidden=(64,), epochs=30), digits).net
    net = Network((*net.layers[:-1], Dense(10 * net.layers[-1].W, 10 * net.layers[-1].b)))  # the same answers, surer
    images, labels = digits.test.batch(slice(None))

    def kept(error):
        noise = Noise(L1, loss=Loss("own", lambda logits, y: (solution.loss(logits, y), error(logits, y))))
        return 100 * (net.predict(noise.craft(net, images, labels, [0.1], None).images[0]) == labels).mean()

    (best,) = R1.craft(net.astype(np.float64), images.astype(np.float64), labels, [0.1], None).images
    truth = 100 * (net.predict(best.astype(np.float32)) == labels).mean()
    with_naive, with_careful = kept(solution.naive), kept(solution.careful)
    expect(with_naive > truth + 5, f"naive: the attack keeps {with_naive:.1f} %, too close to the true {truth:.1f} %")
    expect(abs(with_careful - truth) < 1, f"careful: the attack keeps {with_careful:.1f} %, in float64 {truth:.1f} %")
    return f"under R1 noise of 0.1 a sure net seems to keep {with_naive:.1f} %; in truth it keeps {with_careful:.1f} %"


def meeting(solution):
    """A linear net, whose radius is known by hand, and images of the digits."""
    W, b = np.array([[1.0, -1.0], [0.5, -0.5]]), np.array([-0.6, 0.6])
    linear, x, y = Network((Dense(W, b),)), np.array([[0.5, 0.6]]), np.array([0])
    radius = 0.4 / 3  # the margin is 2 x1 + x2 - 1.2, and noise of phi takes 3 phi off it
    proven, broken, _ = _met(solution, linear, x, y, 0.01)
    expect(proven <= radius <= broken, f"a linear net: {radius:.3f} is true, {proven:.3f} to {broken:.3f} was found")

    digits = load("digits")
    start = mlp((64, 16, 10), generator(0, "weights"), np.float64)  # so that the net is the same on each machine
    net = train(Settings(epochs=20), digits, net=start).net
    images, labels = digits.test.batch(slice(0, 4), np.float64)
    found = [_met(solution, net, images[k : k + 1], labels[k : k + 1], 0.02) for k in range(4)]
    return "the radius of four digits is " + ", ".join(f"{proven:.2f} to {broken:.2f}" for proven, broken, _ in found)


def _met(solution, net, x, y, precision):
    """Return what `meet` found, checked by other means."""
    proven, broken, example = solution.meet(net, x, y, precision)
    expect(0 <= proven < broken, f"expected 0 <= proven < broken, found {proven} and {broken}")
    gap = broken - proven
    expect(gap <= precision, f"they have not met: proven {proven:.3f}, broken {broken:.3f}, {gap:.3f} apart")
    expect(is_proven(net, x, y, proven)[0], f"proven: a phi of {proven:.3f} is not")
    expect(example is not None and net.predict(example)[0] != y[0], "example: the net still classifies it correctly")
    away = abs(example - x).max()
    expect(away <= broken + 1e-6, f"example: {away:.3f} away from x, beyond {broken:.3f}")
    expect(example.min() >= 0 and example.max() <= 1, "example: pixels leave [0, 1], which the proof does not cover")
    return proven, broken, example


CHECKS = {1: power, 2: softplus, 3: broken, 4: float32, 5: meeting}


def main(arguments):
    """Print whether the exercise of this number is solved; return the exit code."""
    if len(arguments) != 1 or arguments[0] not in map(str, CHECKS):
        print("exercise: expected a number from 1 to 5, such as make exercise N=1")
        return 2
    (number,) = arguments
    try:
        shown = check(int(number))
    except UnsolvedError as why:
        print(f"Exercise {number} is not solved yet.\n{why}\nIt is in docs/exercises/exercise_{number}.py.")
        return 1
    print(f"Exercise {number} is solved: {shown}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
