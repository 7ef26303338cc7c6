"""The notebook of the docs: it runs, its assertions hold, and what is committed is a notebook that was run."""

import pytest

pytest.importorskip("nbclient", reason="the extra site is missing")
import nbformat
from tour import TOUR, executed


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(TOUR, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.once
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Jupyter's own
def test_each_cell_runs_and_its_assertions_hold(committed):
    found = code_cells(executed(TOUR))  # an assertion that fails raises CellExecutionError
    assert [cell.source for cell in found] == [cell.source for cell in code_cells(committed)]
    for cell, before in zip(found, code_cells(committed), strict=True):
        assert [output.output_type for output in cell.outputs] == [output.output_type for output in before.outputs]


def test_the_outputs_that_are_committed_are_of_one_run(committed):
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert TOUR.stat().st_size < 200_000
