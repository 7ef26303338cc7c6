"""Count the code lines of the engine: those that bear a token; docstrings, comments and blank lines do not count.

    python tests/tools/code_lines.py

writes the README's tables of the engine's files and of the packages anew, as `make lines` does, and prints them. What
stands beside a name is the first line of its docstring.
"""

import ast
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
NNLITE, README = ROOT / "nnlite", ROOT / "README.md"
ENGINE = (  # in the order of reading; imports go down this list only
    "errors",
    "backend",
    "blas",
    "init",
    "inputs",
    "layers",
    "losses",
    "network",
    "penalties",
    "attacks",
    "apgd",
    "lbfgs",
    "datagrad",
    "methods",
    "sgd",
    "certify",
    "gradcheck",
)
PACKAGES = ("storage", "datasets", "interop", "evaluation", "training", "grid", "bench", "paper")  # likewise
TABLES = re.compile(r"(?<=<!-- make lines -->\n).*(?=\n<!-- end of make lines -->)", re.DOTALL)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(path: Path) -> int:
    """Return how many lines of a source file bear code."""
    with path.open("rb") as source:
        tokens = [token for token in tokenize.tokenize(source.readline) if token.type not in NO_CODE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def engine_lines() -> dict[str, int]:
    """Return the code lines of each file of the engine, by its name in the order of reading."""
    return {name: code_lines(NNLITE / f"{name}.py") for name in ENGINE}


def readme_tables() -> str:
    """Return the tables of the engine's files and of the packages beside it, as Markdown."""
    counts = engine_lines()
    files = [
        f"| [`{name}.py`](nnlite/{name}.py) | {count} | {_first_line(NNLITE / f'{name}.py')} |"
        for name, count in counts.items()
    ]
    packages = [f"| [`{name}`](nnlite/{name}) | {_first_line(NNLITE / name / '__init__.py')} |" for name in PACKAGES]
    return "\n".join(
        [
            "| file | code lines | what it is |",
            "| --- | ---: | --- |",
            *files,
            f"| all | {sum(counts.values()):,} | |",
            "",
            "| package | what it is |",
            "| --- | --- |",
            *packages,
        ]
    )


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return text.partition("\n")[0].removesuffix(".")


if __name__ == "__main__":
    README.write_text(TABLES.sub(lambda _: readme_tables(), README.read_text("utf-8")), "utf-8")
    print(readme_tables())
