"""Reading, checking, splitting and fetching data, against files made by hand and scikit-learn's copy of the digits."""

import gzip
import hashlib
import io
import shutil
import struct
import threading
import time
import tracemalloc
from collections import Counter
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from nnlite.datasets import catalog as datasets
from nnlite.datasets.catalog import (
    IDX_IMAGES,
    IDX_LABELS,
    IDX_LIMIT,
    check_samples,
    fetch_mnist,
    load,
    mnist_cache,
    read_idx,
)
from nnlite.errors import NnliteError

PIXELS = bytes(range(12))
CLOSED_PORT = "http://127.0.0.1:9/"


def idx(magic, *shape, payload=b""):
    """Pack an IDX file by hand; the header may lie about the payload."""
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + payload, mtime=0)


def read_images(content):
    return read_idx(io.BytesIO(content), "file.gz", IDX_IMAGES)


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


def test_a_batch_is_float32_in_0_to_1(digits):
    x, y = digits.train.batch(slice(None))
    assert x.dtype == np.float32
    assert x.shape == (1097, 64)
    assert (x.min(), x.max()) == (0, 1)  # the whole range is used, so the scale is 16 and not 255
    assert y.dtype == np.int64


def test_a_batch_follows_its_row_numbers(digits):
    rows = np.array([[5, 3], [0, 5]])
    x, y = digits.train.batch(rows, np.float64)
    assert x.shape == (2, 2, 64)
    assert x.dtype == np.float64
    np.testing.assert_array_equal(x[1, 1], digits.train.images[5] / 16)
    np.testing.assert_array_equal(y, digits.train.labels[rows])


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


# --- IDX files


def test_images_are_read_row_by_row():
    images = read_images(idx(2051, 3, 2, 2, payload=PIXELS))
    assert images.dtype == np.uint8
    assert images.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]


def test_labels_are_read():
    labels = read_idx(io.BytesIO(idx(2049, 3, payload=b"\x07\x00\x09")), "labels.gz", IDX_LABELS)
    assert labels.tolist() == [7, 0, 9]


GOOD = idx(2051, 3, 2, 2, payload=PIXELS)
BAD_FILES = {
    "empty": (b"", "gzip"),
    "empty inside": (gzip.compress(b""), "header of 16 bytes, found 0"),
    "not gzip": (b"<html>404</html>", "gzip"),
    "labels for images": (idx(2049, 12, payload=PIXELS), "magic number 2051, found 2049"),
    "float pixels": (idx(0x0D03, 3, 2, 2, payload=PIXELS), "magic number 2051, found 3331"),
    "gzip cut in the header": (GOOD[:6], "gzip"),
    "gzip cut in the data": (GOOD[:-12], "gzip"),
    "gzip cut in the checksum": (GOOD[:-2], "gzip"),
    "gzip with a wrong checksum": (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "gzip"),
    "junk after the gzip": (GOOD + b"junk", "one gzip member and then its end, found more"),
    "a zero after the gzip": (GOOD + b"\0", "one gzip member"),
    "two gzip members": (GOOD + GOOD, "one gzip member"),
    "an empty gzip member first": (gzip.compress(b"") + GOOD, "header of 16 bytes, found 0"),
    "an empty gzip member last": (GOOD + gzip.compress(b""), "one gzip member"),
    "junk far behind": (GOOD + bytes(1 << 17), "one gzip member"),
    "payload too short": (idx(2051, 3, 2, 2, payload=PIXELS[:-1]), "expected 12 bytes.*found 11"),
    "payload too long": (idx(2051, 3, 2, 2, payload=PIXELS + b"x"), "expected 12 bytes.*found more"),
    "4 GB": (idx(2051, 2**16, 2**8, 2**8), "header claims 4294967296"),
    "2^96 bytes": (idx(2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "header claims"),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_idx_file_is_named_with_its_fault(content, words):
    with pytest.raises(NnliteError, match=rf"^file\.gz: .*{words}"):
        read_images(content)


@pytest.mark.parametrize("length", [2, 4, 8, 15])
def test_a_header_that_ends_early_is_not_blamed_on_the_magic_number_or_on_numpy(length):
    header = struct.pack(">4I", 2051, 3, 2, 2)[:length]
    with pytest.raises(NnliteError, match=rf"^file\.gz: expected an IDX header of 16 bytes, found {length}$"):
        read_images(gzip.compress(header))


def test_no_images_of_an_absurd_size_are_an_error():
    # 0 * anything is 0 bytes, which passes the size limit, but NumPy has no array of this shape
    with pytest.raises(NnliteError, match=r"^file\.gz"):
        read_images(idx(2051, 0, 2**32 - 1, 2**32 - 1))


def test_one_byte_too_many_is_found_wherever_the_member_ends():
    for length in range(65_536 - 3, 65_536 + 4):  # around the end of a block of the reader
        name = b"n" * (length - len(GOOD) - 1) + b"\0"
        content = GOOD[:3] + b"\x08" + GOOD[4:10] + name + GOOD[10:]
        assert len(content) == length
        assert read_images(content).tobytes() == PIXELS
        with pytest.raises(NnliteError, match="one gzip member"):
            read_images(content + b"x")


class Endless(io.RawIOBase):
    """A file that begins with `head` and then repeats `block` for ever."""

    def __init__(self, head, block):
        self.rest, self.block, self.place = head, block, 0

    def read(self, size):
        while len(self.rest) < size:
            self.rest += self.block * 1000
        sent, self.rest = self.rest[:size], self.rest[size:]
        self.place += size
        return sent

    def tell(self):
        return self.place


PLAIN_GZIP, NAMED_GZIP = (b"\x1f\x8b\x08" + flag + bytes(6) for flag in (b"\x00", b"\x08"))
HOSTILE = {
    "a promise of 4 GB": io.BytesIO(idx(2051, 2**16, 2**8, 2**8)),
    "a promise of just the limit": io.BytesIO(idx(2051, IDX_LIMIT // 4, 2, 2)),
    "a bomb of 50 MB": io.BytesIO(idx(2051, 1, 2, 2, payload=bytes(50_000_000))),
    "a bomb of 50 MB in its second member": io.BytesIO(GOOD + gzip.compress(bytes(50_000_000))),
    "100,000 empty members": io.BytesIO(gzip.compress(b"") * 100_000),
    "a file name without end": Endless(NAMED_GZIP, b"x"),
    "empty blocks without end": Endless(PLAIN_GZIP, b"\x00\x00\x00\xff\xff"),
}


@pytest.mark.parametrize("file", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_costs_neither_memory_nor_time(file):
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(NnliteError, match=r"^file\.gz"):
            read_idx(file, "file.gz", IDX_IMAGES)
        seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert seconds < 1


def test_the_largest_file_that_is_read_takes_little_more_than_itself():
    content = idx(2051, IDX_LIMIT >> 20, 1 << 10, 1 << 10, payload=bytes(IDX_LIMIT))
    tracemalloc.start()
    try:
        assert read_images(content).nbytes == IDX_LIMIT
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * IDX_LIMIT  # 100 MB
    with pytest.raises(NnliteError, match="header claims"):
        read_images(idx(2051, (IDX_LIMIT >> 20) + 1, 1 << 10, 1 << 10))


def reads_or_refuses(content):
    try:
        images = read_images(content)
    except NnliteError:
        return
    assert images.dtype == np.uint8
    assert images.ndim == 3


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_give_images_or_an_nnlite_error(content):
    reads_or_refuses(content)
    reads_or_refuses(gzip.compress(content))
    reads_or_refuses(gzip.compress(struct.pack(">I", 2051) + content))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_file_gives_images_or_an_nnlite_error(data):
    plain = gzip.decompress(GOOD)
    for content, pack in ((GOOD, bytes), (plain, gzip.compress)):
        damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
        for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=3)):
            if damaged:
                damaged[place] = data.draw(st.integers(0, 255))
        reads_or_refuses(pack(bytes(damaged)))


# --- arrays given by the user

ONE, LABEL = np.array([[0.0, 1.0]]), np.array([3])


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ([[0.0, np.nan]], LABEL, "images: .*NaN"),
        ([[np.inf, 0.0]], LABEL, "images: .*infinity"),
        ([[-0.1, 0.5]], LABEL, r"images: .*\[0, 1\].*-0\.1"),
        ([[0.0, 1.5]], LABEL, r"images: .*\[0, 1\].*1\.5"),
        (np.zeros((1, 2, 2)), LABEL, r"images: .*\(1, 2, 2\)"),
        (np.zeros(2), LABEL, r"images: .*\(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), r"images: .*\(0, 2\)"),
        ([["a", "b"]], LABEL, "images: .*numbers"),
        (ONE, np.array([10]), r"labels: .*\[0, 9\].*10"),
        (ONE, np.array([-1]), r"labels: .*\[0, 9\].*-1"),
        (ONE, np.array([3.0]), "labels: .*integers.*float64"),
        (ONE, np.array([True]), "labels: .*integers.*bool"),
        (ONE, np.array([1, 2]), r"labels: .*\(1,\).*\(2,\)"),
        (ONE, np.array([[1]]), r"labels: .*\(1,\).*\(1, 1\)"),
        (ONE, np.array(1), r"labels: .*\(1,\).*\(\)"),
    ],
)
def test_a_bad_array_is_named_with_its_fault(images, labels, words):
    with pytest.raises(NnliteError, match=f"^{words}"):
        check_samples(images, labels)


def test_good_arrays_pass_and_are_not_changed():
    images, labels = np.array([[0, 16], [8, 4]], np.uint8), np.array([9, 0], np.uint8)
    x, y = check_samples(images, labels, white=16).batch(slice(None))
    assert x.tolist() == [[0, 1], [0.5, 0.25]]
    assert y.tolist() == [9, 0]
    assert images.tolist() == [[0, 16], [8, 4]]
    assert images.dtype == labels.dtype == np.uint8


def test_the_number_of_classes_bounds_the_labels():
    check_samples(ONE, np.array([2]), classes=3)
    with pytest.raises(NnliteError, match=r"labels: .*\[0, 1\]"):
        check_samples(ONE, np.array([2]), classes=2)


# --- MNIST: its split


def test_mnist_split_is_complete_and_disjoint(mnist):
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (50_000, 10_000, 10_000)
    assert mnist.shape == (28, 28)
    with gzip.open(datasets.mnist_folder() / "train-images-idx3-ubyte.gz") as file:
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
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in datasets.MNIST_SHA256}
    monkeypatch.setattr(datasets, "MNIST_SHA256", sums)
    monkeypatch.setattr(datasets, "MNIST_BYTES", {name: (folder / name).stat().st_size for name in sums})
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (CLOSED_PORT,))
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
    monkeypatch.setitem(datasets.MNIST_SHA256, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(datasets.MNIST_BYTES, name, len(content))
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
    assert datasets.locate("digits") == "inside nnlite"
    assert datasets.locate("mnist") is None
    monkeypatch.setenv("NNLITE_DATA", str(fake_mnist.parent))
    assert datasets.locate("mnist") == str(fake_mnist)


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
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (serve(fake_mnist),))
    assert len(load("mnist").test) == 50
    assert same_files(mnist_cache(), fake_mnist)
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (CLOSED_PORT,))
    assert len(load("mnist").test) == 50
    assert fetch_mnist() == mnist_cache()


def test_the_second_mirror_serves_what_the_first_lacks(fake_mnist, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (serve(tmp_path / "empty"), serve(fake_mnist)))
    assert same_files(fetch_mnist(), fake_mnist)


def test_only_what_is_missing_is_fetched(fake_mnist, serve, tmp_path, monkeypatch):
    half = tmp_path / "half"
    shutil.copytree(fake_mnist, half)
    mnist_cache().mkdir(parents=True)
    shutil.move(half / "train-images-idx3-ubyte.gz", mnist_cache())
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (serve(half),))
    assert same_files(fetch_mnist(), fake_mnist)


def test_when_all_mirrors_fail_the_error_names_them_and_says_what_to_do(fake_mnist, serve, tmp_path, monkeypatch):
    empty = serve(tmp_path / "empty")
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (empty, CLOSED_PORT))
    with pytest.raises(NnliteError, match=r"^train-images-idx3-ubyte\.gz: could not be fetched") as caught:
        load("mnist")
    for words in (empty, CLOSED_PORT, "NNLITE_DATA", str(mnist_cache())):
        assert words in str(caught.value)


def test_offline_the_error_says_where_to_put_the_files(fake_mnist, serve, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (serve(fake_mnist),))
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
    monkeypatch.setattr(datasets, "MNIST_MIRRORS", (serve(wrong),))
    with pytest.raises(NnliteError, match="train-images"):
        fetch_mnist()
    assert list(mnist_cache().iterdir()) == []
