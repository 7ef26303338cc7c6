"""`nnlite export`: a run in the form that other programs read."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from nnlite.cli.options import PHI, Choice, message, runs_option, writing
from nnlite.cli.own import data_of, find_anywhere
from nnlite.datasets.catalog import DATASETS
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import check_phi, draw
from nnlite.inputs import Box
from nnlite.interop.card import model_card, read_audit
from nnlite.interop.statedict import state_bytes
from nnlite.interop.vnnlib import instances, vnnlib
from nnlite.network import MAIN
from nnlite.storage.files import expect_writable, new_files
from nnlite.training.run_folder import Run, load_whole

NET, INSTANCES = "net.onnx", "instances.csv"


@dataclass(frozen=True)
class Format:
    """A row: a form of a run.

    Arguments:
        ending: What follows the name of the run in that of the file, or of the folder.
        files: (run, the name of the file or folder, its options) -> the files by name.
        options: Those that not every form takes.
        folder: Whether the files have a folder of their own.
    """

    ending: str
    files: Callable[..., Mapping[str, bytes]]
    options: tuple[str, ...]
    folder: bool = False


def _onnx(run: Run, name: str, task: str = MAIN, scaled: bool = False) -> dict[str, bytes]:
    from nnlite.interop.onnx import onnx_bytes, onnx_model

    return {name: onnx_bytes(onnx_model(run.net, run.data, task=task, raw=not scaled))}


def _torch(run: Run, name: str, task: str = MAIN) -> dict[str, bytes]:
    return {name: state_bytes(run.net, run.data, name, task)}


def _vnnlib(
    run: Run, name: str, phi: float = 0.1, images: int = 100, clip: bool = True, seed: int = 0, data: str = ""
) -> dict[str, bytes]:
    from nnlite.interop.onnx import onnx_bytes, onnx_model

    check_phi([phi])
    if not data and run.data.name not in DATASETS:
        raise NnliteError(f"data: {run.name} was trained on {run.data.name}; give the path of its file with --data")
    test = data_of(run, data or run.data.name).test
    rows = draw(len(test), images, seed)
    (x, y), box = test.batch(rows), test.box.take(rows)
    texts = {}
    for k, row in enumerate(rows):
        own = Box(*(end if isinstance(end, float) or end.ndim == 1 else end[k] for end in (box.low, box.high)))
        texts[f"test{row}.vnnlib"] = vnnlib(x[k], int(y[k]), phi, run.net.sizes[-1], own if clip else None)
    texts[INSTANCES] = instances(NET, [*texts])
    net = onnx_bytes(onnx_model(run.net, run.data, raw=False, batch=1))
    return {NET: net, **{file: text.encode() for file, text in texts.items()}}


def _card(run: Run, name: str, audit: Path | None = None) -> dict[str, bytes]:
    found = read_audit(audit, run.name, run.data.name) if audit else None
    settings, versions = asdict(run.settings), load_whole(run.path)[2]
    return {name: model_card(run.name, run.net, run.data, run.results.test, settings, versions, found).encode()}


FORMATS = {
    "onnx": Format(".onnx", _onnx, ("task", "scaled")),
    "torch": Format(".safetensors", _torch, ("task",)),
    "vnnlib": Format("-vnnlib", _vnnlib, ("phi", "images", "clip", "seed", "data"), folder=True),
    "card": Format(".md", _card, ("audit",)),
}


@click.command()
@click.argument("name", metavar="RUN")
@click.option("--to", type=Choice([*FORMATS]), required=True, help="The form.")
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="Where to.  [default: here, as the run]")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option("--task", metavar="NAME", help="Of onnx, torch: the head of a multi-task net.  [default: the main one]")
@click.option("--scaled", is_flag=True, default=None, help="Of onnx: leave the scaling out; rows are in [0, 1].")
@click.option("--phi", type=PHI, help="Of vnnlib: size of noise, such as 8/255.  [default: 0.1]")
@click.option("--images", type=click.IntRange(1), help="Of vnnlib: test images, drawn by the seed.  [default: 100]")
@click.option("--clip/--no-clip", default=None, help="Of vnnlib: keep pixels within the data's range.  [default: yes]")
@click.option("--seed", type=click.IntRange(0), help="Of vnnlib: draws the images, as nnlite certify.  [default: 0]")
@click.option("--data", metavar="PATH", help="Of vnnlib: your own data that the run was trained on.")
@click.option(
    "--audit", type=click.Path(path_type=Path), metavar="FILE.json", help="Of card: what nnlite audit --json printed."
)
@runs_option
def export(name: str, to: str, out: Path | None, overwrite: bool, runs: Path, **options: Any) -> None:
    """Write RUN in the form that other programs read.

    \b
    onnx    a graph for onnxruntime and others, the data's scaling inside
    torch   the state dict of the same nn.Sequential, in safetensors
    vnnlib  a question for verifiers for each test image, and the net in ONNX
    card    a model card in Markdown, as Hugging Face reads it

    onnx and vnnlib need a package more; in a clone of nnlite: pip install '.[onnx]'
    """  # noqa: D301 - click wants the backspace itself
    form, given = FORMATS[to], {name: value for name, value in options.items() if value is not None}
    if foreign := [option for option in given if option not in form.options]:
        takes = ", ".join(f"--{option}" for option in form.options)
        raise click.UsageError(f"--{foreign[0]} is no option of --to {to}, which takes {takes}; leave it out")
    run = find_anywhere(name, runs)
    out = out or Path(f"{run.name}{form.ending}")
    if out.exists() and not overwrite:
        raise NnliteError(f"{out}: it exists; choose another --out (--overwrite replaces it)")
    files, folder = form.files(run, out.name, **given), out if form.folder else out.parent
    with writing(out):
        for file in files:
            expect_writable(folder / file)
        with new_files(folder, last=INSTANCES, replace=overwrite) as place:
            for file, content in files.items():
                (place / file).write_bytes(content)
    message(f"wrote {out}")
