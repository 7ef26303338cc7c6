"""The data sets that nnlite knows: the digits against scikit-learn's copy, MNIST against files made by hand."""

import gzip
import hashlib
import shutil
import struct
import threading
from collections import Counter
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib import resources

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nnlite.datasets import catalog, load
from nnlite.datasets.catalog import fetch_mnist, mnist_cache
from nnlite.errors import NnliteError

CLOSED_PORT = "http://127.0.0.1:9/"


def idx(magic, *shape, payload=b""):
    """Pack an IDX file by hand; the header may lie about the payload."""
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + payload, mtime=0)


# --- the embedded digits


def test_digits_are_those_of_scikit_learn(digits):
    reference = load_digits()
    expected = Counter(zip(map(bytes, reference.images.astype(np.uint8)), reference.target.tolist(), strict=True))
    splits = (digits.train, digits.validation, digits.test)
    found = Counter((bytes(image), int(y)) for s in splits for image, y in zip(s.images, s.labels, strict=True))
    assert found == expected


def test_digits_split_is_1097_200_500_whatever_the_seed(digits):
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1097, 200, 500)
    assert digits.shape == (8, 8)
    assert digits.features == 64
    np.testing.assert_array_equal(load("digits", seed=7).train.images, digits.train.images)


def test_every_class_is_in_every_split(digits):
    for samples in (digits.train, digits.validation, digits.test):
        assert set(samples.labels.tolist()) == set(range(10))


def test_the_shipped_files_hold_the_whole_set():
    folder = resources.files("nnlite.data")
    images = gzip.decompress((folder / "digits-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "digits-labels-idx1-ubyte.gz").read_bytes())
    assert struct.unpack(">4I", images[:16]) == (2051, 1797, 8, 8)
    assert len(images) == 16 + 1797 * 64
    assert struct.unpack(">2I", labels[:8]) == (2049, 1797)
    assert len(labels) == 8 + 1797


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(NnliteError, match=r"data: .*digits, mnist.*'cifar'"):
        load("cifar")


# --- MNIST: its split


def test_mnist_split_is_complete_and_disjoint(mnist):
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (50_000, 10_000, 10_000)
    assert mnist.shape == (28, 28)
    with gzip.open(catalog.mnist_folder() / "train-images-idx3-ubyte.gz") as file:
        content = file.read()[16:]
    whole = Counter(content[start : start + 784] for start in range(0, len(content), 784))
    assert Counter(map(bytes, [*mnist.train.images, *mnist.validation.images])) == whole


def test_mnist_pixels_use_the_whole_range(mnist):
    x, _ = mnist.test.batch(slice(0, 100))
    assert (x.min(), x.max()) == (0, 1)


def write_fake_mnist(folder):
    """Write four files of MNIST's names: 10,100 and 50 images of 2 x 2 pixels that spell their own number."""
    folder.mkdir(parents=True)
    for stem, count in (("train", 10_100), ("t10k", 50)):
        numbers = np.arange(count, dtype=">u4")
        images, labels = numbers.tobytes(), (numbers % 10).astype(np.uint8).tobytes()
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(2051, count, 2, 2, payload=images))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(2049, count, payload=labels))
    return folder


def numbers_of(samples):
    return np.ascontiguousarray(samples.images).view(">u4").reshape(-1)


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    """A folder of fake MNIST files that nnlite takes for the real ones; NNLITE_DATA is unset, the cache empty."""
    folder = write_fake_mnist(tmp_path / "data" / "mnist")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in catalog.MNIST_SHA256}
    monkeypatch.setattr(catalog, "MNIST_SHA256", sums)
    monkeypatch.setattr(catalog, "MNIST_BYTES", {name: (folder / name).stat().st_size for name in sums})
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (CLOSED_PORT,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("NNLITE_DATA", raising=False)
    monkeypatch.delenv("NNLITE_OFFLINE", raising=False)
    return folder


@pytest.fixture
def at_hand(fake_mnist, monkeypatch):
    """The same, with NNLITE_DATA set to the folder above it."""
    monkeypatch.setenv("NNLITE_DATA", str(fake_mnist.parent))
    return fake_mnist


def test_a_fake_mnist_is_split_without_loss_or_overlap(at_hand):
    data = load("mnist", seed=3)
    assert (len(data.train), len(data.validation), len(data.test)) == (100, 10_000, 50)
    drawn = np.concatenate([numbers_of(data.train), numbers_of(data.validation)])
    assert sorted(drawn.tolist()) == list(range(10_100))
    assert numbers_of(data.test).tolist() == list(range(50))


def test_labels_stay_with_their_images(at_hand):
    data = load("mnist", seed=3)
    for samples in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(numbers_of(samples) % 10, samples.labels)


def test_the_split_depends_on_the_seed_alone(at_hand):
    first, again, other = (numbers_of(load("mnist", seed=seed).train).tolist() for seed in (3, 3, 4))
    assert first == again
    assert first != other


# --- MNIST: where it is looked for


def test_a_wrong_checksum_or_size_names_the_file(at_hand):
    path = at_hand / "t10k-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(NnliteError, match=r"t10k-labels-idx1-ubyte\.gz: .*SHA-256"):
        load("mnist")
    path.write_bytes(content + b"\0")
    with pytest.raises(NnliteError, match=rf"t10k-labels-idx1-ubyte\.gz: expected {len(content)} bytes, found"):
        load("mnist")


def test_a_missing_file_in_the_named_folder_is_not_fetched(at_hand):
    (at_hand / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(NnliteError, match=r"train-labels-idx1-ubyte\.gz.*NNLITE_DATA"):
        load("mnist")


def test_labels_of_another_length_are_refused(at_hand, monkeypatch):
    name, content = "t10k-labels-idx1-ubyte.gz", idx(2049, 3, payload=b"\1\2\3")
    (at_hand / name).write_bytes(content)
    monkeypatch.setitem(catalog.MNIST_SHA256, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(catalog.MNIST_BYTES, name, len(content))
    with pytest.raises(NnliteError, match="labels"):
        load("mnist")


def test_the_cache_is_below_xdg_cache_home(fake_mnist, tmp_path):
    assert mnist_cache() == tmp_path / "cache" / "nnlite" / "mnist"


def test_without_a_mnist_folder_a_warning_is_logged_and_the_cache_used(fake_mnist, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NNLITE_DATA", str(tmp_path / "nothing"))
    shutil.copytree(fake_mnist, mnist_cache())
    assert len(load("mnist").test) == 50
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(tmp_path / "nothing" / "mnist") in record.getMessage()


def test_locate_says_where_a_data_set_is(fake_mnist, monkeypatch):
    assert catalog.locate("digits") == "inside nnlite"
    assert catalog.locate("mnist") is None
    monkeypatch.setenv("NNLITE_DATA", str(fake_mnist.parent))
    assert catalog.locate("mnist") == str(fake_mnist)


# --- MNIST: fetching, from mirrors on this machine


@pytest.fixture
def serve():
    """Serve a folder over HTTP on 127.0.0.1; returns its address."""
    servers = []

    def start(folder):
        folder.mkdir(parents=True, exist_ok=True)
        server = HTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def same_files(one, other):
    return {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_mnist_is_fetched_into_the_cache_once(fake_mnist, serve, monkeypatch):
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (serve(fake_mnist),))
    assert len(load("mnist").test) == 50
    assert same_files(mnist_cache(), fake_mnist)
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (CLOSED_PORT,))
    assert len(load("mnist").test) == 50
    assert fetch_mnist() == mnist_cache()


def test_the_second_mirror_serves_what_the_first_lacks(fake_mnist, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (serve(tmp_path / "empty"), serve(fake_mnist)))
    assert same_files(fetch_mnist(), fake_mnist)


def test_only_what_is_missing_is_fetched(fake_mnist, serve, tmp_path, monkeypatch):
    half = tmp_path / "half"
    shutil.copytree(fake_mnist, half)
    mnist_cache().mkdir(parents=True)
    shutil.move(half / "train-images-idx3-ubyte.gz", mnist_cache())
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (serve(half),))
    assert same_files(fetch_mnist(), fake_mnist)


def test_when_all_mirrors_fail_the_error_names_them_and_says_what_to_do(fake_mnist, serve, tmp_path, monkeypatch):
    empty = serve(tmp_path / "empty")
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (empty, CLOSED_PORT))
    with pytest.raises(NnliteError, match=r"^train-images-idx3-ubyte\.gz: could not be fetched") as caught:
        load("mnist")
    for words in (empty, CLOSED_PORT, "NNLITE_DATA", str(mnist_cache())):
        assert words in str(caught.value)


def test_offline_the_error_says_where_to_put_the_files(fake_mnist, serve, monkeypatch):
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (serve(fake_mnist),))
    monkeypatch.setenv("NNLITE_OFFLINE", "1")
    with pytest.raises(NnliteError, match="NNLITE_OFFLINE is set") as caught:
        load("mnist")
    assert "NNLITE_DATA" in str(caught.value)
    shutil.copytree(fake_mnist, mnist_cache())
    assert str(mnist_cache()) in str(caught.value)
    assert len(load("mnist").test) == 50


def test_wrong_bytes_from_a_mirror_are_not_kept(fake_mnist, serve, tmp_path, monkeypatch):
    wrong = tmp_path / "wrong"
    shutil.copytree(fake_mnist, wrong)
    (wrong / "train-images-idx3-ubyte.gz").write_bytes(b"<html>log in first</html>")
    monkeypatch.setattr(catalog, "MNIST_MIRRORS", (serve(wrong),))
    with pytest.raises(NnliteError, match="train-images"):
        fetch_mnist()
    assert list(mnist_cache().iterdir()) == []
