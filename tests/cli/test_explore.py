"""`nnlite explore`: the page that it writes, and what it refuses."""

import json
import re

import pytest

FEW = ("--images", "2", "--examples", "4")


@pytest.fixture
def explored(nnlite):
    """Call `nnlite explore` beside two small runs."""
    for name in ("a", "b"):
        assert nnlite("train", "--hidden", "8", "--epochs", "2", "--name", name).exit_code == 0
    return lambda *args: nnlite("explore", *FEW, *args)


def test_it_writes_a_page_of_both_runs(explored, tmp_path):
    result = explored("a", "b", "--out", "pages/ab.html", "--phi", "8/255")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "pages" / "ab.html").read_text("utf-8")
    found = json.loads(re.search('type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert [net["name"] for net in found["nets"]] == ["a", "b"]
    assert found["nets"][0]["note"] == "no regularisation"
    assert (len(found["labels"]), found["phi"]) == (2, pytest.approx(8 / 255))
    assert re.search(r"wrote pages.ab\.html, \d\d kB; open it in a browser", result.stderr)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a", "a"], "expected runs of different names"),
        (["a", "--out", "page.txt"], "expected a file that ends in .html, found 'page.txt'"),
        (["c"], "expected the name or path of a run, found 'c'"),
        (["a", "--phi", "2"], "phi: expected numbers from 0 to 1"),
        (["a", "--images", "0"], "0 is not in the range x>=1"),
    ],
)
def test_what_is_refused_leaves_no_page(explored, tmp_path, args, words):
    result = explored(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.html"))


def test_a_place_that_cannot_be_written_is_named_before_the_work(explored, tmp_path):
    (tmp_path / "closed").touch()
    result = explored("a", "--out", "closed/page.html")
    assert result.exit_code == 2
    assert "closed" in result.stderr
