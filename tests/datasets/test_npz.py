"""NPZ files from strangers: read, or soon refused by nnlite's own error, whatever zipfile and NumPy say of them."""

import io
import struct
import zipfile

import numpy as np
import pytest
from peak import memory_below

from nnlite.datasets.npz import read_npz
from nnlite.errors import NnliteError


def npy(array):
    """Return the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def headed(text, version=1, data=bytes(16)):
    """Return the bytes of a .npy file with any header."""
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + data


def of_shape(text):
    return headed(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {text}}}\n")


X = npy(np.arange(80.0).reshape(40, 2))


def zipped(path, *members, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", how) as file:
        for name, content in members:
            file.writestr(name, content)


def encrypted(path):
    zipped(path, ("x.npy", X), how=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def crowded(path):
    """Write an archive of nothing but a directory, of 300,000 entries in the form of zip64."""
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x"
    count, size = 300_000, 300_000 * len(entry)
    end = b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, size, 0)
    end += b"PK\6\7" + struct.pack("<LQL", 0, size, 1)
    path.write_bytes(entry * count + end + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2))


def torn(how):
    def make(path):
        zipped(path, ("x.npy", X), how=how)
        content = bytearray(path.read_bytes())
        content[45:70] = bytes(byte ^ 0xFF for byte in content[45:70])
        path.write_bytes(content)

    return make


HOSTILE = {
    "101 members": lambda path: zipped(path, *((str(k), X) for k in range(101))),
    "300,000 members": crowded,
    "a header of 50 MB in 50 kB": lambda path: zipped(path, ("x.npy", headed(" " * 50_000_000, 2))),
    "an encrypted member": encrypted,
    "torn, by LZMA": torn(zipfile.ZIP_LZMA),
    "torn, by bzip2": torn(zipfile.ZIP_BZIP2),
    "torn, by deflate": torn(zipfile.ZIP_DEFLATED),
    "parentheses without end": lambda path: zipped(path, ("x.npy", headed("(" * 9000))),
    "a text without end": lambda path: zipped(path, ("x.npy", headed("{'descr': '''<f8'}\n x\n y"))),
    "types within types": lambda path: zipped(
        path, ("x.npy", headed("{'descr': " + "[('a'," * 900 + "'<f4'" + ")]" * 900 + "}\n"))
    ),
    "400 digits": lambda path: zipped(path, ("x.npy", of_shape(f"({'9' * 400}, 2)"))),
    "5,000 digits": lambda path: zipped(path, ("x.npy", of_shape(f"({'9' * 5000}, 2)"))),
    "2**63 values": lambda path: zipped(path, ("x.npy", of_shape(f"({2**40}, {2**40})"))),
    "fewer than no values": lambda path: zipped(path, ("x.npy", of_shape("(-1, 2)"))),
    "true as a length": lambda path: zipped(path, ("x.npy", of_shape("(True, 2)"))),
    "200 axes": lambda path: zipped(path, ("x.npy", of_shape(f"({'1,' * 200})"))),
    "a claim of 16 TB": lambda path: zipped(path, ("x.npy", of_shape(f"({2**40}, 2)"))),
    "no characters": lambda path: zipped(path, ("x.npy", npy(np.full(9, 1 << 21, "<u4").view("<U3")))),
    "no characters, big-endian": lambda path: zipped(path, ("x.npy", npy(np.full(9, 1 << 21, ">u4").view(">U3")))),
    "an odd escape": lambda path: zipped(path, ("x.npy", headed(r"{'descr': '\d'}" + "\n"))),
    "Python 2": lambda path: zipped(path, ("x.npy", of_shape("(9L, 2L)"))),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_soon_and_without_memory(tmp_path, case):
    path = tmp_path / "own.npz"
    HOSTILE[case](path)
    with pytest.raises(NnliteError, match=r"own\.npz: (expected an NPZ file|cannot be read|it claims)"):
        read_npz(path)
    with memory_below(50e6), pytest.raises(NnliteError):
        read_npz(path)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_of_each_version_of_the_header_is_read(tmp_path, version):
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2)}\n"
    zipped(tmp_path / "own.npz", ("x.npy", headed(text, version, np.array([1.0, 2.0]).tobytes())))
    assert read_npz(tmp_path / "own.npz")["x"].tolist() == [[1.0, 2.0]]
