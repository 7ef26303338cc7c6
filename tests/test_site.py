"""The site, as `make site` has built it: whole, without a broken link, and in need of no network."""

import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from code_lines import ENGINE

ROOT = Path(__file__).parent.parent
SITE = ROOT / os.environ.get("NNLITE_SITE", "nowhere")
PAGES = sorted(SITE.rglob("*.html"))
pytestmark = pytest.mark.skipif("NNLITE_SITE" not in os.environ, reason="make site builds it, and runs these tests")


class Page(HTMLParser):
    """The ids of a page, where it leads to, and what a browser loads with it."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link":
            self.loads.append(found["href"])
        self.loads += [found[name] for name in ("src", "srcset", "poster", "data") if found.get(name)]
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", found.get("style") or "")


@cache
def page(path):
    return Page(path.read_text("utf-8"))


def is_elsewhere(address):
    return bool(urlsplit(address).netloc)


def test_each_page_of_the_docs_is_in_it():
    for path in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]:
        assert (SITE / path.relative_to(ROOT / "docs")).with_suffix(".html").is_file()


def test_no_link_within_it_is_broken():
    links = [(path, link) for path in PAGES for link in page(path).links if not urlsplit(link).scheme]
    assert len(links) > 1000
    for path, link in links:
        target, fragment = (unquote(part) for part in (urlsplit(link).path, urlsplit(link).fragment))
        where = (path.parent / target).resolve() if target else path
        assert where.is_file(), f"{path.name}: {link}"
        if fragment and where.suffix == ".html":
            assert fragment in page(where).ids, f"{path.name}: {link}"


def test_it_loads_nothing_from_elsewhere_and_what_it_loads_is_there():
    loads = [(path, address) for path in PAGES for address in page(path).loads]
    loads += [
        (path, address)
        for path in SITE.rglob("*.css")
        for address in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", path.read_text("utf-8"))
    ]
    assert len(loads) > 100
    for path, address in loads:
        if not address.startswith("data:"):
            assert not is_elsewhere(address), f"{path.name} loads {address}"
            assert (path.parent / unquote(urlsplit(address).path)).exists(), f"{path.name} loads {address}"


def test_every_formula_is_rendered():
    pages = "".join(path.read_text("utf-8") for path in PAGES)
    assert pages.count('class="katex"') > 1
    assert "katex-error" not in pages
    assert (SITE / "_static/fonts/KaTeX_Main-Regular.woff2").is_file()


def test_each_file_of_the_engine_is_on_the_page_of_names():
    assert {f"module-nnlite.{name}" for name in ENGINE} <= page(SITE / "api.html").ids
