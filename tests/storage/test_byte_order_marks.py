"""A byte order mark, which editors and spreadsheets put before a text, changes nothing that is read from it."""

import codecs
import shutil
from pathlib import Path

import pytest

from nnlite.bench.report import read_reports
from nnlite.grid.combinations import read_grid
from nnlite.paper.scores import read_scores
from nnlite.storage.files import read_text
from nnlite.training.run_folder import load_run

KEPT = Path(__file__).parents[1] / "fixtures" / "0.1.0"


def run(folder):
    """Return all of a run but its net, whose file is no text."""
    found = load_run(folder / "trained" / "digits" / "rect")
    return found.settings, found.history, found.results


READERS = {
    "a run": run,
    "a grid": lambda folder: [job.settings for job in read_grid(folder / "grid.toml", Path("runs"))],
    "scores": lambda folder: {key: values.tolist() for key, values in read_scores(folder / "reproduced").items()},
    "a report": lambda folder: read_reports(folder / "bench.json"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_text_with_a_mark_is_read_as_without(tmp_path, reader):
    shutil.copytree(KEPT, tmp_path / "kept")
    marked = [path for path in (tmp_path / "kept").rglob("*") if path.suffix in (".json", ".toml", ".csv")]
    assert len(marked) > 10
    for path in marked:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert reader(tmp_path / "kept") == reader(KEPT)


def test_a_text_in_utf_16_is_refused_and_not_guessed(tmp_path):
    (tmp_path / "a.csv").write_text("epoch,loss", "utf-16")
    with pytest.raises(ValueError, match="utf-8"):
        read_text(tmp_path / "a.csv", 100)
