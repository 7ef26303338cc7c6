"""docs/extend.md: what it adds is short, and the way that it leads along is walked here, command by command."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "extend.md").read_text("utf-8")
EXTENSIONS = ["A penalty", "An attack", "A method", "A layer", "A data set"]


def fences(section, language):
    """Return the code of each fence of a language in a section of the page."""
    text = re.split(r"^## ", PAGE.partition(f"\n## {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("section", EXTENSIONS)
def test_each_extension_takes_fewer_than_ten_lines(section):
    lines = [line for line in fences(section, "python")[0].splitlines() if line]
    assert 0 < len(lines) < 10


@pytest.mark.once
def test_the_way_from_the_readme_to_an_audited_penalty_is_as_written(tmp_path):
    section = "From the README to a penalty of your own"
    (tmp_path / "mine.py").write_text(fences("A penalty", "python")[0] + fences(section, "py")[0], "utf-8")
    printed = []
    for line in "".join(fences(section, "sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "python"
        process = [sys.executable, *arguments]
        printed.append(subprocess.run(process, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    checked, rect, soft, audited = printed
    assert len(re.findall(r" pass$", checked, re.MULTILINE)) == 4
    assert accuracy_at_largest(soft) > accuracy_at_largest(rect) + 15
    one_step, worst, proven = (row(name, audited) for name in ("R1, one step", "worst case", "proven, 100 images"))
    assert one_step[2] > worst[2]
    assert proven[1] < worst[1]
    assert "0 FAIL" in audited


def accuracy_at_largest(line):
    return float(re.search(r"([\d.]+) at 0\.1 %", line)[1])


def row(name, table):
    return [float(number) for number in re.search(rf"^{name} +(.+)$", table, re.MULTILINE)[1].split()]
