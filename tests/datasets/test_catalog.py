"""The catalogue: the digits against scikit-learn's copy, MNIST against files made by hand, and a new data set."""

import gzip
import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nnlite.datasets import DATASETS, load, locate
from nnlite.datasets.catalog import Entry, File, fetch_dataset
from nnlite.datasets.downloads import cache_folder
from nnlite.errors import NnliteError
from nnlite.training.settings import Settings

CLOSED_PORT = "http://127.0.0.1:9/"


def write_idx(path, array):
    """Write an array of bytes as a gzipped IDX file, and return what a row says of it."""
    head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    content = gzip.compress(head + array.tobytes(), mtime=0)
    path.write_bytes(content)
    return File(path.name, len(content), hashlib.sha256(content).hexdigest())


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


def test_a_digits_file_that_is_damaged_is_refused(monkeypatch):
    images, labels = DATASETS["digits"].files
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], files=(images, replace(labels, sha256="0"))))
    with pytest.raises(NnliteError, match=r"digits-labels-idx1-ubyte\.gz: expected SHA-256 0, .*install it anew"):
        load("digits")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(NnliteError, match=r"data: .*digits, mnist.*'cifar'"):
        load("cifar")


# --- MNIST: its split


def test_mnist_split_is_complete_and_disjoint(mnist):
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (50_000, 10_000, 10_000)
    assert mnist.shape == (28, 28)
    with gzip.open(Path(locate("mnist")) / "train-images-idx3-ubyte.gz") as file:
        content = file.read()[16:]
    whole = Counter(content[start : start + 784] for start in range(0, len(content), 784))
    assert Counter(map(bytes, [*mnist.train.images, *mnist.validation.images])) == whole


def test_mnist_pixels_use_the_whole_range(mnist):
    x, _ = mnist.test.batch(slice(0, 100))
    assert (x.min(), x.max()) == (0, 1)


def numbers_of(samples):
    return np.ascontiguousarray(samples.images).view(">u4").reshape(-1)


def row(monkeypatch, **changes):
    """Change the row of MNIST."""
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], **changes))


def cache():
    return cache_folder() / "mnist"


def fetch():
    return fetch_dataset(DATASETS["mnist"])


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    """A folder of files with MNIST's names, and a row that fits them; NNLITE_DATA is unset, the cache empty.

    It has 10,100 and 50 images of 2 x 2 pixels that spell their own number.
    """
    folder, files = tmp_path / "data" / "mnist", []
    folder.mkdir(parents=True)
    for stem, count in (("train", 10_100), ("t10k", 50)):
        numbers = np.arange(count, dtype=">u4")
        files.append(write_idx(folder / f"{stem}-images-idx3-ubyte.gz", numbers.view(np.uint8).reshape(count, 2, 2)))
        files.append(write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", (numbers % 10).astype(np.uint8)))
    row(monkeypatch, shape=(2, 2), splits=(100, 10_000, 50), files=tuple(files), mirrors=(CLOSED_PORT,))
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
    labels = write_idx(at_hand / "t10k-labels-idx1-ubyte.gz", np.array([1, 2, 3], np.uint8))
    row(monkeypatch, files=(*DATASETS["mnist"].files[:3], labels))
    with pytest.raises(NnliteError, match=r"labels: expected one for each image, shape \(50,\), found \(3,\)"):
        load("mnist")


@pytest.mark.parametrize("wrong", [{"shape": (4, 1)}, {"splits": (101, 10_000, 50)}, {"splits": (100, 10_000, 49)}])
def test_files_that_are_not_as_their_row_says_are_refused(at_hand, monkeypatch, wrong):
    row(monkeypatch, **wrong)
    with pytest.raises(
        NnliteError, match=r"images-idx3-ubyte\.gz: expected images of shape .* mnist, found \(.*2, 2\)"
    ):
        load("mnist")


def test_the_cache_is_below_xdg_cache_home(fake_mnist, tmp_path):
    assert cache() == tmp_path / "cache" / "nnlite" / "mnist"


def test_without_a_mnist_folder_a_warning_is_logged_and_the_cache_used(fake_mnist, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NNLITE_DATA", str(tmp_path / "nothing"))
    shutil.copytree(fake_mnist, cache())
    assert len(load("mnist").test) == 50
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(tmp_path / "nothing" / "mnist") in record.getMessage()


def test_locate_says_where_a_data_set_is(fake_mnist, monkeypatch):
    assert locate("digits") == "inside nnlite"
    assert locate("mnist") is None
    monkeypatch.setenv("NNLITE_DATA", str(fake_mnist.parent))
    assert locate("mnist") == str(fake_mnist)


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
    row(monkeypatch, mirrors=(serve(fake_mnist),))
    assert len(load("mnist").test) == 50
    assert same_files(cache(), fake_mnist)
    row(monkeypatch, mirrors=(CLOSED_PORT,))
    assert len(load("mnist").test) == 50
    assert fetch() == cache()


def test_the_second_mirror_serves_what_the_first_lacks(fake_mnist, serve, tmp_path, monkeypatch):
    row(monkeypatch, mirrors=(serve(tmp_path / "empty"), serve(fake_mnist)))
    assert same_files(fetch(), fake_mnist)


def test_only_what_is_missing_is_fetched(fake_mnist, serve, tmp_path, monkeypatch):
    half = tmp_path / "half"
    shutil.copytree(fake_mnist, half)
    cache().mkdir(parents=True)
    shutil.move(half / "train-images-idx3-ubyte.gz", cache())
    row(monkeypatch, mirrors=(serve(half),))
    assert len(load("mnist").test) == 50
    assert same_files(cache(), fake_mnist)


def test_when_all_mirrors_fail_the_error_names_them_and_says_what_to_do(fake_mnist, serve, tmp_path, monkeypatch):
    empty = serve(tmp_path / "empty")
    row(monkeypatch, mirrors=(empty, CLOSED_PORT))
    with pytest.raises(NnliteError, match=r"^train-images-idx3-ubyte\.gz: could not be fetched") as caught:
        load("mnist")
    for words in (empty, CLOSED_PORT, "NNLITE_DATA", str(cache())):
        assert words in str(caught.value)


def test_offline_the_error_says_where_to_put_the_files(fake_mnist, serve, monkeypatch):
    row(monkeypatch, mirrors=(serve(fake_mnist),))
    monkeypatch.setenv("NNLITE_OFFLINE", "1")
    with pytest.raises(NnliteError, match="NNLITE_OFFLINE is set") as caught:
        load("mnist")
    assert "NNLITE_DATA" in str(caught.value)
    shutil.copytree(fake_mnist, cache())
    assert str(cache()) in str(caught.value)
    assert len(load("mnist").test) == 50


def test_wrong_bytes_from_a_mirror_are_not_kept(fake_mnist, serve, tmp_path, monkeypatch):
    wrong = tmp_path / "wrong"
    shutil.copytree(fake_mnist, wrong)
    (wrong / "train-images-idx3-ubyte.gz").write_bytes(b"<html>log in first</html>")
    row(monkeypatch, mirrors=(serve(wrong),))
    with pytest.raises(NnliteError, match="train-images"):
        fetch()
    assert not cache().exists()


# --- a new data set


STRIPES = Entry(
    name="stripes",
    shape=(2, 3),
    classes=3,
    white=4,
    splits=(60, 20, 10),
    files=(),
    licence="CC0 1.0",
    source="made by this test",
    mirrors=(CLOSED_PORT,),
)


@pytest.fixture(params=["one pair of files", "two pairs"])
def stripes(request, tmp_path, monkeypatch):
    """A new row, and its files, at hand in NNLITE_DATA: each image has one bright column, its class."""
    folder = tmp_path / "data" / "stripes"
    folder.mkdir(parents=True)
    labels = (np.arange(90) % 3).astype(np.uint8)
    images = np.repeat(4 * np.eye(3, dtype=np.uint8)[labels][:, None], 2, axis=1)
    files = []
    for first, last in [(0, 90)] if request.param == "one pair of files" else [(0, 80), (80, 90)]:
        files.append(write_idx(folder / f"images-{first}.gz", images[first:last]))
        files.append(write_idx(folder / f"labels-{first}.gz", labels[first:last]))
    monkeypatch.setenv("NNLITE_DATA", str(folder.parent))
    return replace(STRIPES, files=tuple(files))


def test_a_new_row_is_all_that_a_new_data_set_needs(stripes, monkeypatch):
    monkeypatch.setitem(DATASETS, "stripes", stripes)
    data = load("stripes")
    assert Settings(data="stripes", hidden=(5,)).sizes(data.description) == (6, 5, 3)
    assert (data.name, data.shape, data.classes) == ("stripes", (2, 3), 3)
    for samples, first, count in ((data.train, 0, 60), (data.validation, 60, 20), (data.test, 80, 10)):
        x, y = samples.batch(slice(None))
        assert y.tolist() == [number % 3 for number in range(first, first + count)]
        assert x.tolist() == np.tile(np.eye(3)[y], 2).tolist()


def test_classes_have_the_names_of_their_row(stripes, monkeypatch):
    monkeypatch.setitem(DATASETS, "stripes", replace(stripes, names=("left", "middle", "right")))
    assert load("stripes").description.classes == ("left", "middle", "right")


def test_the_command_line_lists_a_new_row_and_trains_on_it(stripes, tmp_path):
    # a process of its own: the choices of --data are made when the command line is imported
    train = ["train", "--data", "stripes", "--hidden", "8", "--batch-size", "10"]
    code = f"""
from nnlite.datasets.catalog import DATASETS, Entry, File
DATASETS["stripes"] = {stripes}
from click.testing import CliRunner
from nnlite.cli.main import main
results = [CliRunner().invoke(main, args) for args in (["data", "--json"], {train}, ["runs", "--json"])]
assert not any(result.exit_code for result in results), [result.stderr for result in results]
print("[", results[0].stdout, ",", results[2].stdout, "]")
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, check=True)
    listed, (run,) = json.loads(said.stdout)
    assert listed[-1] == {
        "name": "stripes",
        "images": "90 of 2 x 3",
        "splits": "60 / 20 / 10",
        "licence": "CC0 1.0",
        "source": "made by this test",
        "place": str(tmp_path / "data" / "stripes"),
    }
    assert run["results"]["test"] == 100


@pytest.mark.parametrize("entry", DATASETS.values(), ids=DATASETS)
def test_each_row_is_whole(entry):
    assert DATASETS[entry.name] is entry
    assert len(entry.files) in (2, 4)
    assert len({file.name for file in entry.files}) == len(entry.files)
    assert all(file.size > 0 and re.fullmatch("[0-9a-f]{64}", file.sha256) for file in entry.files)
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in entry.mirrors)
    assert len(entry.names) in (0, entry.classes)
    assert entry.licence
    assert entry.source
