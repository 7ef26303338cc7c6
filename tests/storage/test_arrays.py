"""Named arrays in a file: the library safetensors is the oracle of the format; no lie of a stranger comes through."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from peak import memory_below

from nnlite.errors import NnliteError
from nnlite.storage.tensors import HEADER_LIMIT, new_arrays, open_arrays, size_of, write_arrays

LAYOUT = {
    "images": (np.dtype(np.float32), (5, 3)),
    "wide": (np.dtype(np.float64), (2, 2, 2)),
    "labels": (np.dtype(np.int64), (5,)),
}


def values(name):
    dtype, shape = LAYOUT[name]
    return np.random.default_rng(len(name)).normal(0, 100, shape).astype(dtype)


def write(path, metadata=None):
    """Write all arrays of LAYOUT, the first in two blocks, the later one first."""
    with new_arrays(path, LAYOUT, metadata or {}) as file:
        file.put("labels", values("labels"))
        file.put("images", values("images")[2:], 2)
        file.put("images", values("images")[:2])
        file.put("wide", values("wide"))


def raw(header, data=b"", length=None):
    """Return the bytes of a file with this header, a text or what json.dumps takes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(**changes):
    """Return the entry of a float32 array of 4 bytes, with some changes."""
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes


def test_the_library_reads_what_was_written_block_by_block(tmp_path):
    path = tmp_path / "new" / "file"
    write(path, {"text": 'ä "quoted"\n'})
    back = safetensors.numpy.load_file(path)
    assert back.keys() == LAYOUT.keys()
    for name, array in back.items():
        assert array.dtype == LAYOUT[name][0]
        np.testing.assert_array_equal(array, values(name))
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"text": 'ä "quoted"\n'}
    assert size_of(LAYOUT) == sum(array.nbytes for array in back.values())
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_the_library_wrote_is_read_whole_and_by_rows(tmp_path):
    arrays = {name: values(name) for name in LAYOUT}
    safetensors.numpy.save_file(arrays, tmp_path / "file", {"key": "text"})
    file = open_arrays(tmp_path / "file")
    assert file.metadata == {"key": "text"}
    assert file.layout == LAYOUT
    for name, array in arrays.items():
        np.testing.assert_array_equal(file.read(name), array)
        for rows in (slice(1, 2), slice(1, 99), slice(4, 2)):
            np.testing.assert_array_equal(file.read(name, rows), array[rows])


def test_arrays_in_any_order_of_the_memory_come_back(tmp_path):
    square = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    arrays = {"turned": square.T, "fortran": np.asfortranarray(square), "some": square[::2, 1::3], "back": square[::-1]}
    write_arrays(tmp_path / "file", arrays, {"key": "text"})
    assert open_arrays(tmp_path / "file").metadata == {"key": "text"}
    back = safetensors.numpy.load_file(tmp_path / "file")
    for name, array in arrays.items():
        np.testing.assert_array_equal(open_arrays(tmp_path / "file").read(name), array)
        np.testing.assert_array_equal(back[name], array)


def write_and_stop(path, stop):
    with new_arrays(path, LAYOUT, {}) as file:
        file.put("labels", values("labels"))
        if stop:
            raise stop


@pytest.mark.parametrize("stop", [KeyboardInterrupt, NnliteError, None])
def test_what_is_not_finished_leaves_nothing_behind(tmp_path, stop):
    with pytest.raises(stop or ValueError):
        write_and_stop(tmp_path / "file", stop)
    assert not list(tmp_path.iterdir())


def test_rows_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit"), new_arrays(tmp_path / "file", LAYOUT, {}) as file:
        file.put("images", values("images"), 1)


def test_a_file_that_is_there_is_never_replaced(tmp_path):
    write(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    with pytest.raises(NnliteError, match=r"there is such a file; choose another name$"):
        write(tmp_path / "file", {"other": "text"})
    assert (tmp_path / "file").read_bytes() == before


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_came_meanwhile_is_not_replaced_either(tmp_path, monkeypatch, hard_links):
    if not hard_links:
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr(os, "open", without_unnamed_files(os.open))
    write(tmp_path / "file")
    with pytest.raises(NnliteError, match="cannot write it"), new_arrays(tmp_path / "late", {}, {}):
        (tmp_path / "late").write_text("precious")
    assert (tmp_path / "late").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "late"]


def refuse(*_, **__):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def without_unnamed_files(real):
    """Return os.open as on a file system that knows no O_TMPFILE."""

    def call(path, flags, *more, **others):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *more, **others)

    return call


def test_where_nothing_can_be_written_the_error_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NnliteError, match="cannot write it"):
        write(tmp_path / "file" / "below")


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NnliteError, match="No space left on device"):
        write(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_file_cut_off_after_its_header_was_read_is_told(tmp_path):
    write(tmp_path / "file")
    file = open_arrays(tmp_path / "file")
    os.truncate(tmp_path / "file", os.path.getsize(tmp_path / "file") - 8)
    with pytest.raises(NnliteError, match=r"damaged one: .* not fully covered"):
        file.read("labels")


def test_arrays_of_another_form_that_took_their_place_meanwhile_are_refused(tmp_path):
    for name, count in (("file", 3), ("other", 4)):
        write_arrays(tmp_path / name, {"labels": np.arange(count)})
    file = open_arrays(tmp_path / "file")
    (tmp_path / "other").replace(tmp_path / "file")
    with pytest.raises(NnliteError, match="'labels' is another array than when the file was opened"):
        file.read("labels", slice(2))


class PanicError(BaseException):
    """What a library in Rust raises where it finds a mistake of its own."""


@pytest.mark.parametrize("raised", [PanicError, safetensors.SafetensorError, KeyError, KeyboardInterrupt, MemoryError])
def test_what_the_library_raises_is_our_own_error_but_for_ctrl_c_and_a_lack_of_memory(tmp_path, monkeypatch, raised):
    def fails(*_):
        raise raised("within the library")

    write_arrays(tmp_path / "file", {"labels": np.arange(3)})
    monkeypatch.setattr(safetensors, "safe_open", fails)
    expected = raised if raised in (KeyboardInterrupt, MemoryError) else NnliteError
    with pytest.raises(expected, match="within the library"):
        open_arrays(tmp_path / "file")


LIES = {
    "empty": (b"", "header too small"),
    "short": (b"1234567", "claim a header of 15540725856023089 bytes"),
    "header beyond the file": (raw(b"{}", length=3), "invalid header length"),
    "endless header": (raw(b"{}", length=2**64 - 1), "claim a header of 18446744073709551615"),
    "large header": (raw(b"{}".ljust(HEADER_LIMIT + 1)), "claim a header of 1048577"),
    "no JSON": (raw(b"{'a': 1}"), "key must be a string"),
    "no UTF-8": (raw(b'{"\xff": {}}'), "utf-8"),
    "no object": (raw([1, 2]), "invalid type: sequence"),
    "nested": (raw(b'{"a": ' + b"[" * 100_000), "recursion limit exceeded"),
    "duplicate name": (raw(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2), b"1234"), "stands twice"),
    "duplicate dtype": (raw(b'{"a": {"dtype": "F32", "dtype": "F32"}}'), "duplicate field"),
    "duplicate text": (raw(b'{"__metadata__": {"a": "", "a": ""}}'), "stands twice"),
    "NaN": (raw(b'{"a": NaN}'), "invalid JSON"),
    "1e999": (raw(b'{"a": 1e999}'), "number out of range"),
    "a number of 5,000 digits": (raw(b'{"a": %s}' % (b"9" * 5000)), "number out of range"),
    "half a character": (raw({"__metadata__": {"a": "\udfff"}}), "lone leading surrogate"),
    "metadata of numbers": (raw({"__metadata__": {"a": 1}}), "expected a string"),
    "metadata as a list": (raw({"__metadata__": ["a"]}), "expected a map"),
    "entry as a list": (raw({"a": [1]}), "invalid type: integer `1`"),
    "entry with more": (raw({"a": entry(more=1)}, b"1234"), "more than dtype, shape and data_offsets"),
    "unknown dtype": (raw({"a": entry(dtype="F8")}, b"1234"), "unknown variant `F8`"),
    "dtype as a list": (raw({"a": entry(dtype=[])}, b"1234"), "invalid type: sequence"),
    "negative shape": (raw({"a": entry(shape=[-1, -1])}, b"1234"), "invalid value: integer `-1`"),
    "true as a size": (raw({"a": entry(shape=[True])}, b"1234"), "invalid type: boolean"),
    "1.0 as a size": (raw({"a": entry(shape=[1.0])}, b"1234"), "invalid type: floating point"),
    "no axis": (raw({"a": entry(shape=[])}, b"1234"), "1 to 4 axes, dtype F32 or F64 or I64, found F32 ()"),
    "many axes": (raw({"a": entry(shape=[1] * 5)}, b"1234"), "found F32 (1, 1, 1, 1, 1)"),
    "three offsets": (raw({"a": entry(data_offsets=[0, 2, 4])}, b"1234"), "invalid length 3"),
    "huge offset": (raw({"a": entry(data_offsets=[0, 2**63])}, b"1234"), "invalid shape, data type, or offset"),
    "shape that overflows": (raw({"a": entry(shape=[2**62, 4])}, b"1234"), "overflow"),
    "a terabyte": (raw({"a": entry(shape=[2**38], data_offsets=[0, 2**40])}, b"1234"), "not fully covered"),
    "large shape": (raw({"a": entry(shape=[2])}, b"1234"), "invalid shape, data type, or offset"),
    "backward offsets": (raw({"a": entry(data_offsets=[4, 0])}, b"1234"), "invalid offset for tensor `a`"),
    "gap": (raw({"a": entry(data_offsets=[4, 8])}, b"12345678"), "invalid offset for tensor `a`"),
    "overlap": (raw({"a": entry(), "b": entry()}, b"1234"), "invalid offset for tensor `"),
    "more bytes than arrays": (raw({"a": entry()}, b"12345"), "not fully covered"),
    "less bytes than arrays": (raw({"a": entry()}, b"123"), "not fully covered"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_soon_and_without_memory(tmp_path, lie):
    content, words = LIES[lie]
    (tmp_path / "file").write_bytes(content)
    with memory_below(20e6), pytest.raises(NnliteError) as error:
        open_arrays(tmp_path / "file")
    assert str(error.value).startswith(f"{tmp_path / 'file'}: expected a safetensors file, found a damaged one: ")
    assert words in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("start", ["\x1b[2J", "\x1b[2J\ud800"])
def test_a_name_of_control_characters_does_not_reach_the_terminal(tmp_path, start):
    (tmp_path / "file").write_bytes(raw({start + "long " * 1000: entry(data_offsets=[4, 8])}, b"12345678"))
    with pytest.raises(NnliteError) as error:
        open_arrays(tmp_path / "file")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_folder_a_pipe_and_nothing_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in ((".", "Is a directory"), ("pipe", "it is no regular file")):
        with pytest.raises(NnliteError, match=words):
            open_arrays(tmp_path / name)
    with pytest.raises(NnliteError, match="it is no regular file"):
        open_arrays(Path("/dev/zero"))
    for name in ("none", "n" * 300, "null\0"):
        with pytest.raises(NnliteError, match=name.strip("\0")):
            open_arrays(tmp_path / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for files that each example overwrites."""
    return tmp_path_factory.mktemp("strangers")


pieces = st.sampled_from(
    [b"", b"{", b"}", b'"', b"[", b"]", b",", b"0", b"-1", b"9" * 30, b"NaN", b"null", b"F64", b"\0"]
)


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), pieces | st.binary(max_size=4)), max_size=6))
def test_whatever_is_read_the_library_reads_alike_and_all_else_is_our_own_error(folder, edits):
    path = folder / "file"
    path.unlink(missing_ok=True)
    write(path, {"key": "text"})
    content = bytearray(path.read_bytes())
    for place, length, piece in edits:
        content[place : place + length] = piece
    path.write_bytes(content)
    try:
        file = open_arrays(path)
    except NnliteError:
        return
    arrays = safetensors.numpy.load(bytes(content))
    assert file.layout.keys() == arrays.keys()
    for name, array in arrays.items():
        assert file.read(name).tobytes() == array.tobytes()
        assert file.layout[name] == (array.dtype, array.shape)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(raw))
def test_noise_is_our_own_error(folder, content):
    (folder / "noise").write_bytes(content)
    try:
        file = open_arrays(folder / "noise")
    except NnliteError:
        return
    safetensors.numpy.load(content)
    assert not file.layout


@pytest.mark.parametrize("version", ["0.7.0", "0.4.5"])
def test_a_library_that_is_too_old_is_named(tmp_path, monkeypatch, version):
    write_arrays(tmp_path / "good", {"a": np.zeros(3)})
    monkeypatch.setattr(safetensors, "__version__", version)
    with pytest.raises(NnliteError, match=rf"safetensors: expected version 0\.8 or newer, found {version}"):
        open_arrays(tmp_path / "good")
