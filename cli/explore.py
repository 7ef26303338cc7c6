"""`nnlite explore`: runs and test images in one HTML page, to move the noise by hand."""

from pathlib import Path

import click

from nnlite.cli.options import PHI, data_option, in_blocks, message, method_of, runs_option, writing
from nnlite.cli.own import data_of, on_same_data
from nnlite.cli.progress import progress
from nnlite.datasets.loading import source_name
from nnlite.errors import NnliteError
from nnlite.evaluation.explorer import LARGE_LIMIT, USUAL_LIMIT, ExplorerOptions, explorer_page
from nnlite.storage.files import expect_writable, new_file
from nnlite.training.runs import find_run

USUAL = ExplorerOptions()


@click.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), default="explore.html", show_default=True, help="The page.")
@data_option
@runs_option
@click.option("--phi", type=PHI, default=USUAL.phi, show_default=True, help="The largest noise of the slider.")
@click.option(
    "--images", type=click.IntRange(1), default=USUAL.images, show_default=True, help="Test images to choose from."
)
@click.option(
    "--examples",
    type=click.IntRange(1),
    default=USUAL.examples,
    show_default=True,
    help="Test images that accuracies rest on.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of what is drawn.")
@click.option(
    "--large", is_flag=True, help=f"Let the page have {LARGE_LIMIT // 1000:,} kB instead of {USUAL_LIMIT // 1000:,}."
)
@in_blocks
def explore(
    names: tuple[str, ...],
    out: Path,
    data: str,
    runs: Path,
    phi: float,
    images: int,
    examples: int,
    seed: int,
    large: bool,
) -> None:
    """Make an HTML page in which to move the noise, and see what it does to RUN.

    In the page you choose a test image, draw one, or set the features of a row; move phi; and see the noise, what each
    net reads, how much noise is proven harmless and how much breaks it, and the accuracies of each net. Two runs are
    shown side by side. The page is one file, works without a network, and loads nothing.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise NnliteError(f"out: expected a file that ends in .html, found {str(out)!r}")
    with writing(out):
        expect_writable(out)
    source, data = data, source_name(data)
    found = [find_run(name, data, runs) for name in names]
    if len({run.name for run in found}) < len(found):
        raise NnliteError("run: expected runs of different names, found one twice")
    dataset = data_of(found[0], source)
    found = on_same_data(found, dataset, chosen=True)
    options = ExplorerOptions(phi, images, examples, seed, LARGE_LIMIT if large else USUAL_LIMIT)
    nets, notes = {run.name: run.net for run in found}, {run.name: method_of(run) for run in found}
    with progress("explore", each=True) as show:
        page = explorer_page(
            nets, dataset, options, notes=notes, on_part=lambda name, done, total: show(done, total, name)
        )
    with writing(out), new_file(out, replace=True) as place:
        place.write_text(page, "utf-8")
    message(f"wrote {out}, {len(page.encode()) / 1000:,.0f} kB; open it in a browser")
