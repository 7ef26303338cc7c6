"""CSV files: those that spreadsheets and pandas write, and those that are wrong in one place."""

import codecs

import numpy as np
import pytest
from peak import memory_below
from tables import write_csv

from nnlite.datasets.table import read_table
from nnlite.errors import NnliteError

HEADER = ["a", "b", "kind"]


def write(path, content):
    (path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return path / "t.csv"


@pytest.mark.parametrize(
    "content",
    [
        "a,b,kind\n1,2.5,x\n-3e2,4,y\n",
        "a,b,kind\r\n1,2.5,x\r\n-3e2,4,y\r\n",
        codecs.BOM_UTF8 + b"a,b,kind\n1,2.5,x\n-3e2,4,y\n",
        '"a","b","kind"\n"1","2.5","x"\n"-3e2","4","y"\n',
        "a, b, kind\n 1, 2.5, x\n\n-3e2, 4 , y\n",
        "a,b,kind\n1,2.5,x\n-3e2,4,y",
        "a,b,kind\r1,2.5,x\r-3e2,4,y\r",
        "a,b,kind\r\n1,2.5,x\r\n\r\n-3e2,4,y\r\n\n",
    ],
    ids=["plain", "CRLF", "BOM", "quoted", "blanks", "no end of the last line", "CR", "all kinds of ends"],
)
def test_a_table_is_read_however_it_was_written(tmp_path, content):
    table = read_table(write(tmp_path, content))
    assert (table.columns, table.label, table.classes) == (("a", "b"), "kind", ["x", "y"])
    assert table.values.tolist() == [[1, 2.5], [-300, 4]]
    assert table.numbers.tolist() == [0, 1]


def test_commas_and_line_ends_within_quotes_belong_to_the_field(tmp_path):
    path = write_csv(tmp_path / "t.csv", ["size, in m", "kind"], [[1, "red, dark"], [2, "two\nlines"]])
    table = read_table(path)
    assert (table.columns, table.classes) == (("size, in m",), ["red, dark", "two\nlines"])


def test_another_column_may_hold_the_labels(tmp_path):
    table = read_table(write(tmp_path, "a,b,c\n1,2,3\n4,5,6\n"), "b")
    assert (table.columns, table.label, table.classes) == (("a", "c"), "b", ["2", "5"])
    assert table.values.tolist() == [[1, 3], [4, 6]]


@pytest.mark.parametrize("header", ["a,b,kind", "kind,b,a", "b,a"])
def test_wanted_columns_are_found_by_their_names(tmp_path, header):
    row = ",".join({"a": "1", "b": "2", "kind": "?"}[name] for name in header.split(","))
    table = read_table(write(tmp_path, f"{header}\n{row}\n"), "kind", features=("a", "b"))
    assert table.values.tolist() == [[1, 2]]
    assert (table.label, table.classes) == (("kind", [""]) if "kind" in header else (None, []))


def test_numbers_are_read_as_python_reads_them(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 4)) * 10.0 ** np.arange(-6, 10, 4)
    path = write_csv(tmp_path / "t.csv", [*"abcd", "kind"], [[*row.tolist(), "x"] for row in values])
    assert np.array_equal(read_table(path).values, values)


LONG = "".join(f"{k},1,x\n" for k in range(2, 7031))
BAD = {
    "empty": ("", "line 1: expected column names, found nothing"),
    "only names": ("a,b,kind\n", "expected rows below the column names, found none"),
    "no names": ("1,2,3\n4,5,6\n", "line 1: expected column names, found numbers"),
    "semicolons": ("a;b;kind\n1;2;x\n", "separated by commas, found ';'"),
    "an index": (",a,kind\n0,1,x\n", "line 1: column 1 has no name"),
    "a name twice": ("a,a,kind\n1,2,x\n", "two columns are named 'a'"),
    "only labels": ("kind\nx\ny\n", "expected columns of numbers beside the labels"),
    "a short line": (f"a,b,kind\n{LONG}1,2\n", "line 7,031: expected 3 fields, as in the first line, found 2"),
    "a long line": (f"a,b,kind\n{LONG}1,2,x,\n", "line 7,031: expected 3 fields, as in the first line, found 4"),
    "text": ("a,b,kind\n1,2,x\n1,red,x\n", "line 3, column 'b': expected a number, found 'red'"),
    "a missing value": ("a,b,kind\n1,,x\n", "line 2, column 'b': expected a number, found a missing value"),
    "NaN": ("a,b,kind\n1,2,x\nNaN,2,x\n", r"line 3, column 'a': expected a number, found a missing value \('NaN'\)"),
    "a control character": ("a,b,kind\n1,\x1d2,x\n", r"line 2, column 'b': expected a number, found '\\x1d2'"),
    "a number of Python's source": ("a,b,kind\n1_000,2,x\n", "line 2, column 'a': expected a number, found '1_000'"),
    "infinity": ("a,b,kind\n1e999,2,x\n", "line 2, column 'a': expected a number, found '1e999'"),
    "a missing label": ("a,b,kind\n1,2,\n", "line 2: expected a label in column 'kind', found none"),
    "a long label": (
        f"a,kind\n1,{'x' * 100_000}\n" + "".join(f"{k},y{k}\n" for k in range(9_000)),
        "line 2: expected a label of at most 200 characters, found 100,000",
    ),
    "a label of its own for each row": (
        "a,kind\n" + "".join(f"{k},y{k}\n" for k in range(300_000)),
        "line 10,002: expected at most 10,000 different labels",
    ),
    "an open quote": ('a,b,kind\n"1,2,x\n1,2,x\n', "expected CSV "),
    "Latin-1": ("a,b,kind\n1,2,blé\n".encode("latin-1"), "expected text in UTF-8, found the byte 0xe9"),
    "many columns": (",".join(f"c{k}" for k in range(100_000)), "expected at most 10,000 columns, found 100,000"),
    "a line without end": ("a" * (1 << 21), "expected CSV .a row has 1,048,576 characters or more"),
    "a row without end": ("a,kind\n" + '"\nx",' * 3_000_000, "expected CSV .a row has 1,048,576 characters or more"),
    "many columns, no rows": (",".join(f"c{k}" for k in range(9_999)) + "\n" * 2_000_000, "expected rows below"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_with_its_place(tmp_path, case):
    content, words = BAD[case]
    path = write(tmp_path, content)
    with pytest.raises(NnliteError, match=words) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    with memory_below(100e6), pytest.raises(NnliteError):
        read_table(path)


def test_line_numbers_count_the_lines_within_quotes(tmp_path):
    path = write(tmp_path, 'a,kind\n1,"two\nlines"\nred,x\n')
    with pytest.raises(NnliteError, match="line 4, column 'a'"):
        read_table(path)


def test_a_label_column_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NnliteError, match=r"expected a column 'klass' of labels, found a, b, kind; see --label"):
        read_table(write(tmp_path, "a,b,kind\n1,2,x\n"), "klass")


@pytest.mark.parametrize(
    ("header", "words"), [("a,kind", "column 'b': found none"), ("a,b,c", "column 'c': the net does not know it")]
)
def test_new_rows_have_the_columns_of_the_data(tmp_path, header, words):
    with pytest.raises(NnliteError, match=words):
        read_table(write(tmp_path, f"{header}\n{'1,' * header.count(',')}1\n"), "kind", features=("a", "b"))


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    for path in (tmp_path, tmp_path / "no.csv"):
        with pytest.raises(NnliteError, match=r"cannot be read \(.*; give the path of a CSV file"):
            read_table(path)
