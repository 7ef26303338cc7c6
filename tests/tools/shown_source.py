"""Copy the source of what a page shows into the page, so that its reader sees what runs.

    python tests/tools/shown_source.py docs/annotated.md

A fence that opens with ```python nnlite.module.name holds the source of that name as `inspect` finds it, without its
docstring: what the docstring says stands beside it in prose. The tests compare the two.
"""

import ast
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from textwrap import dedent

SHOWN = re.compile(r"^```python (?P<name>nnlite[\w.]+)\n(?P<source>.*?)^```$", re.DOTALL | re.MULTILINE)


def source_of(name: str) -> str:
    """Return the source of a function, a method, a property, a class, or a value that a module assigns."""
    found = pkgutil.resolve_name(name)
    found = found.fget if isinstance(found, property) else found
    if not (inspect.isfunction(found) or inspect.isclass(found)):
        return _assignment(*name.rsplit(".", 1))
    source = dedent(inspect.getsource(found))
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            first, end = node.body[0].lineno - 1, node.body[0].end_lineno or 0
            end += isinstance(node, ast.ClassDef)  # a blank line stands between it and the first field
            lines[first:end] = [""] * (end - first)
    return "".join(lines)


def refreshed(page: str) -> str:
    """Return the text of a page with each shown source as it is now."""
    return SHOWN.sub(lambda fence: f"```python {fence['name']}\n{source_of(fence['name'])}```", page)


def _assignment(module: str, name: str) -> str:
    text = inspect.getsource(pkgutil.resolve_name(module))
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return f"{ast.get_source_segment(text, node)}\n"
    raise LookupError(f"{module} assigns no {name}")


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(refreshed(page.read_text("utf-8")), "utf-8")
