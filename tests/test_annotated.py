"""The annotated paper, docs/annotated.md: its places are those of the paper, and the source that it shows is nnlite's.

That its code runs is tested with the other pages, in test_docs.py.
"""

import ast
import csv
import io
import re
import tokenize
from pathlib import Path

import pytest
from shown_source import SHOWN, refreshed, source_of

from nnlite.paper.claims import CLAIMS

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "annotated.md").read_text("utf-8")
EXECUTED = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name_of(row):
    """Return how the page calls a place of the list: `2.1 ¶2 s4`, or `abstract s1` where there is one paragraph."""
    paragraph = f" ¶{row['paragraph']}" if row["paragraph"] else ""
    return f"{row['section']}{paragraph} s{row['sentence']}"


with (DOCS / "annotated-places.csv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))
KINDS = {name_of(row): row["kind"] for row in ROWS}


def statements(tree):
    """Yield the statements that run whenever the page does: those of no function, class or branch."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.For):
            yield from statements(node)


def asserted_places(page):
    """Return the places named in comments beside the assertions that run."""
    found = set()
    for code in EXECUTED.findall(page):
        asserts = [node for node in statements(ast.parse(code)) if isinstance(node, ast.Assert)]
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            line = token.start[0]
            if token.type == tokenize.COMMENT and any(node.lineno <= line <= node.end_lineno for node in asserts):
                found |= {*token.string.removeprefix("# ").split("; ")}
    return found


def test_each_claim_and_each_equation_of_the_paper_is_asserted():
    needed = {place for place, kind in KINDS.items() if kind in ("claim", "equation")}
    assert sorted(needed - asserted_places(PAGE)) == []


def test_the_page_names_no_place_that_the_paper_does_not_have():
    assert sorted(asserted_places(PAGE) - KINDS.keys()) == []


def test_the_list_names_each_place_once_in_order_and_says_what_it_is():
    assert len(KINDS) == len(ROWS)
    assert set(KINDS.values()) == {"claim", "equation", "definition", "none"}
    previous = {}
    for row in ROWS:
        paragraph, sentence = int(row["paragraph"] or 1), int(row["sentence"])
        before = previous.get(row["section"], (1, 0))
        assert (paragraph, sentence) in {(before[0], before[1] + 1), (before[0] + 1, 1)}, row
        previous[row["section"]] = (paragraph, sentence)


def test_the_list_has_the_places_of_the_claims_that_the_reproduction_decides():
    for claim in CLAIMS:
        for part in claim.where_in_paper.split("; "):
            section = re.match(r"(?:section )?(abstract|conclusion|appendix A|footnote \d|\d)", part)[1]
            paragraph = re.search(r"paragraph (\d)", part)
            for sentence in re.findall(r"\d", (re.search(r"sentences? (\d(?: and \d)?)", part) or ["", "1"])[1]):
                row = {"section": section, "paragraph": paragraph and paragraph[1], "sentence": sentence}
                assert KINDS[name_of(row)] == "claim", part


def test_the_source_that_the_page_shows_is_that_of_nnlite():
    assert len(SHOWN.findall(PAGE)) > 10
    assert refreshed(PAGE) == PAGE, "make lines writes it anew"


@pytest.mark.parametrize(
    ("code", "places"),
    [
        ("assert True  # 2 ¶1 s1; 2 ¶1 s2", {"2 ¶1 s1", "2 ¶1 s2"}),
        ("for k in range(3):\n    assert k < 3  # 2 ¶1 s1", {"2 ¶1 s1"}),
        ("assert (\n    True  # 2 ¶1 s1\n)", {"2 ¶1 s1"}),
        ("x = 1  # 2 ¶1 s1", set()),
        ("def never():\n    assert True  # 2 ¶1 s1", set()),
        ("if False:\n    assert True  # 2 ¶1 s1", set()),
    ],
)
def test_only_an_assertion_that_runs_counts(code, places):
    assert asserted_places(f"```python\n{code}\n```\n") == places
    assert asserted_places(f"```sh\n{code}\n```\n") == set()


def test_shown_source_leaves_out_docstrings_and_nothing_else():
    assert source_of("nnlite.datagrad.Term.weight") == (
        "@property\ndef weight(self) -> Number:\n    return self.lam if self.phi is None else self.lam / self.phi\n"
    )
    assert source_of("nnlite.penalties.L2") == 'L2 = Penalty("l2", _sum_of_squares, _twice)\n'
    with pytest.raises(LookupError, match=r"nnlite\.methods assigns no L2"):
        source_of("nnlite.methods.L2")
