"""PyTorch: the module against its twin of torch's own parts, and attacks of others that run on it unmodified."""

import importlib
import math
import sys

import numpy as np
import pytest
from nets import biased_mlp

from nnlite.backend import to_host
from nnlite.errors import NnliteError
from nnlite.interop.statedict import state_bytes, state_dict
from nnlite.layers import ReLU
from nnlite.network import Network, mlp, stack


@pytest.fixture
def bridge():
    """nnlite.interop.torch; a test that asks for it is skipped where the extra is missing."""
    try:
        import nnlite.interop.torch
    except NnliteError as error:
        pytest.skip(f"missing extra: {error}")
    return nnlite.interop.torch


@pytest.fixture
def torch(bridge):
    """PyTorch, in one thread."""
    bridge.torch.set_num_threads(1)
    return bridge.torch


def net_of(dtype, sizes=(12, 9, 8, 5), heads=None):
    return biased_mlp(list(sizes), np.random.default_rng(0), heads).astype(dtype)


def rows(torch, dtype, count=50, width=12, *, gradient=True):
    x = np.random.default_rng(1).normal(size=(count, width)).astype(dtype)
    return torch.tensor(x, requires_grad=gradient)


def gradient(module, x, loss):
    x = x.detach().clone().requires_grad_()
    loss(module(x)).backward()
    return x.grad


LOSSES = {
    "cross-entropy": lambda torch, z: torch.nn.functional.cross_entropy(z, torch.arange(len(z)) % 5),
    "sum of squares": lambda torch, z: (z * z).sum(),
    "largest": lambda torch, z: z.max(dim=1).values.sum(),
}


@pytest.mark.parametrize(("dtype", "logits", "relative"), [("float32", 1e-5, 1e-6), ("float64", 1e-12, 1e-12)])
@pytest.mark.parametrize("loss", LOSSES)
def test_logits_and_input_gradient_are_those_of_the_twin(bridge, torch, dtype, logits, relative, loss):
    net = net_of(dtype)
    module, twin, x = bridge.torch_module(net), bridge.sequential(net), rows(torch, dtype)
    assert not module.training
    assert (module(x) - twin(x)).abs().max() <= logits
    found, expected = (gradient(one, x, lambda z: LOSSES[loss](torch, z)) for one in (module, twin))
    assert (found - expected).norm() <= relative * expected.norm()


def test_torch_s_own_checker_agrees(bridge, torch):
    x = rows(torch, "float64", 4)
    assert torch.autograd.gradcheck(bridge.torch_module(net_of("float64")), (x,))


def test_a_layer_of_one_s_own_is_differentiated_too(bridge, torch):
    class Tanh:
        parameters = {}  # noqa: RUF012

        def forward(self, x):
            return np.tanh(x)

        def backward(self, x, dy):
            return dy * (1 - np.tanh(x) ** 2)

    first, _, last = net_of("float64", (12, 9, 5)).layers
    module, x = bridge.torch_module(Network((Tanh(), first, Tanh(), last))), rows(torch, "float64", 4)
    assert torch.autograd.gradcheck(module, (x,))


def test_the_head_of_another_task(bridge, torch):
    net = net_of("float64", heads={"rotation": 4})
    x = rows(torch, "float64")
    for task in ("digit", "rotation"):
        module, twin = bridge.torch_module(net, task), bridge.sequential(net, task)
        np.testing.assert_allclose(module(x).detach(), net.logits(x.detach().numpy(), task), rtol=0, atol=0)
        found, expected = (gradient(one, x, lambda z: (z * z).sum()) for one in (module, twin))
        assert (found - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2), (1, 1, 12)])
def test_images_have_their_channels_first_in_torch_and_last_in_nnlite(bridge, torch, shape):
    net, module = net_of("float64"), bridge.torch_module(net_of("float64"))
    images = rows(torch, "float64").detach().reshape(-1, *shape)
    as_rows = np.moveaxis(images.numpy(), 1, -1).reshape(-1, 12)
    np.testing.assert_array_equal(module(images), net.logits(as_rows))
    found = gradient(module, images, lambda z: (z * z).sum())
    expected = gradient(bridge.sequential(net), torch.tensor(as_rows), lambda z: (z * z).sum()).numpy()
    np.testing.assert_allclose(np.moveaxis(found.numpy(), 1, -1).reshape(-1, 12), expected, rtol=1e-12)


def test_what_comes_in_stays_and_a_change_before_the_way_back_is_found(bridge, torch):
    module, x = bridge.torch_module(net_of("float64")), rows(torch, "float64", gradient=False)
    before = x.clone()
    gradient(module, x, lambda z: z.sum())
    assert torch.equal(x, before)
    leaf = x.requires_grad_()
    moved = leaf * 1
    z = module(moved)
    moved.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_it_can_be_differentiated_once(bridge, torch):
    x = rows(torch, "float64")
    (dx,) = torch.autograd.grad(bridge.torch_module(net_of("float64"))(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_what_does_not_fit_is_said(bridge, torch):
    module, x = bridge.torch_module(net_of("float32")), rows(torch, "float32")
    for wrong, words in [
        (x.double(), "expected a tensor of torch.float32 on cpu, found torch.float64 on cpu"),
        (x.to("meta"), "expected a tensor of torch.float32 on cpu, found torch.float32 on meta"),
        (x.detach().numpy(), "expected a tensor of torch.float32 on cpu, found a ndarray"),
        (x[:, :5], r"expected rows \(N, 12\), or images .*, found \(50, 5\); reshape it"),
        (x[0], r"found \(12,\); reshape it"),
        (x.reshape(50, 3, 4), r"found \(50, 3, 4\); reshape it"),
        (x.reshape(25, 1, 4, 6), r"found \(25, 1, 4, 6\); reshape it"),
    ]:
        with pytest.raises(NnliteError, match=words):
            module(wrong)
    net = net_of("float32")
    for make in (bridge.torch_module, bridge.sequential):
        with pytest.raises(NnliteError, match="net: expected one net, found a stack of 2"):
            make(stack([net, net]))
        with pytest.raises(NnliteError, match="task: expected digit, found 'rotation'"):
            make(net, "rotation")


def test_no_rows_give_no_logits(bridge, torch):
    assert bridge.torch_module(net_of("float32"))(torch.zeros(0, 12)).shape == (0, 5)


# The state dict needs no PyTorch to be written


def test_the_state_dict_is_by_the_names_of_nn_sequential():
    net = net_of("float32")
    found = state_dict(net)
    assert [*found] == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    np.testing.assert_array_equal(found["2.weight"], to_host(net.layers[2].W).T)


def test_the_readme_in_the_file_loads_it(bridge, torch, digits, tmp_path, monkeypatch):
    import safetensors

    monkeypatch.chdir(tmp_path)
    net = net_of("float32", (64, 9, 10))
    (tmp_path / "it's.safetensors").write_bytes(state_bytes(net, digits.description, "it's.safetensors"))
    with safetensors.safe_open("it's.safetensors", "np") as file:
        space = {}
        exec(file.metadata()["README"], space)
    x, _ = digits.test.batch(slice(0, 20))
    np.testing.assert_allclose(space["net"](torch.tensor(x)).detach(), net.logits(x), rtol=0, atol=1e-5)


# Attacks of others


@pytest.fixture
def attacked(bridge, torch, trained):
    """The module of a small net, 20 test images that it gets right as torch sees them, and their labels."""
    digits, net = trained
    x, y = digits.test.batch(slice(0, 60))
    right = np.flatnonzero(net.predict(x) == y)[:20]
    return bridge.torch_module(net), torch.tensor(x[right]).reshape(-1, 1, 8, 8), torch.tensor(y[right])


def test_autoattack_runs_unmodified(attacked, capfd):
    torchattacks = pytest.importorskip("torchattacks", reason="missing extra")
    module, x, y = attacked
    attack = torchattacks.AutoAttack(module, eps=0.15, n_classes=10, seed=0)
    adversarial = attack(x, y)
    assert capfd.readouterr() == ("", "")
    assert (adversarial - x).abs().max() <= 0.15 + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (module(adversarial).argmax(dim=1) == y).float().mean() < 0.5


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("LinfPGD", {}, [0.15]),
        ("LInfFMNAttack", {"steps": 30}, [None]),
        ("DDNAttack", {"steps": 30}, [None]),
        ("L2DeepFoolAttack", {"steps": 30}, [None]),
        ("L2CarliniWagnerAttack", {"steps": 50, "binary_search_steps": 3}, [None]),
    ],
)
def test_foolbox_runs_unmodified(attacked, name, options, sizes):
    foolbox = pytest.importorskip("foolbox", reason="missing extra")
    module, x, y = attacked
    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    _, (clipped,), (fooled,) = getattr(foolbox.attacks, name)(**options)(model, x, y, epsilons=sizes)
    assert fooled.float().mean() > 0.5
    assert ((module(clipped).argmax(dim=1) != y) == fooled).all()
    assert math.isfinite(clipped.sum())


def test_without_torch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "nnlite.interop.torch", raising=False)
    with pytest.raises(NnliteError, match=r"torch: expected .*; install it with pip install '\.\[torch\]' in a clone"):
        importlib.import_module("nnlite.interop.torch")


def test_the_twin_is_of_dense_and_relu_alone():
    class Half(ReLU):
        pass

    first, _, last = mlp((3, 4, 2), np.random.default_rng(0)).layers
    with pytest.raises(NnliteError, match=r"layer 1 \(Half\): expected Dense and ReLU layers alone"):
        state_dict(Network((first, Half(), last)))
