"""Ask Marabou, a verifier of others, what nnlite's certificates and attacks answer, by the files of `nnlite export`.

    python -m venv build/marabou && build/marabou/bin/pip install maraboupy numpy
    .venv/bin/python tests/tools/beside_marabou.py RUN --phi 0.1 --images 50

counts the images by what Marabou says ("unsat", none falls; "sat", one does; or undecided after --seconds) and
by what nnlite says. It ends with 1 where the two contradict each other, or where a point that Marabou found is none.
"""

import csv
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click
import numpy as np
from click.testing import CliRunner

from nnlite.apgd import APGD
from nnlite.certify import is_proven
from nnlite.cli.main import main as nnlite
from nnlite.cli.options import PHI, print_table
from nnlite.cli.own import data_of, find_anywhere
from nnlite.init import generator

TIES = 1e-4  # of logits: Marabou's own tolerance


@click.command()
@click.argument("name", metavar="RUN")
@click.option("--phi", type=PHI, default=0.1)
@click.option("--images", type=int, default=50)
@click.option("--seconds", type=int, default=60)
@click.option("--runs", type=click.Path(path_type=Path), default="runs")
@click.option("--marabou", default="build/marabou/bin/Marabou")
def main(name: str, phi: float, images: int, seconds: int, runs: Path, marabou: str) -> None:
    """Print the table of one run."""
    run = find_anywhere(name, runs)
    test = data_of(run, run.data.name).test
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        call = ["export", str(run.path), "--to", "vnnlib", "--phi", str(phi), "--images", str(images)]
        done = CliRunner().invoke(nnlite, [*call, "--out", f"{place}/files"])
        assert done.exit_code == 0, done.stderr
        for net, file, _ in csv.reader((Path(place) / "files" / "instances.csv").open()):
            row = int(re.sub(r"\D", "", file))
            x, y = test.batch(slice(row, row + 1))
            asked = [marabou, f"{place}/files/{net}", f"{place}/files/{file}", "--timeout", str(seconds)]
            text = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
            said = (re.findall(r"^(sat|unsat)$", text, re.MULTILINE) or ["undecided"])[0]
            (adversarial,) = APGD().craft(run.net, x, y, (phi,), generator(0, "attack")).images
            broken, proven = run.net.predict(adversarial)[0] != y[0], is_proven(run.net, x, y, phi)[0]
            ours = "broken" if broken else "proven" if proven else "unknown"
            counts[said, ours] += 1
            if (said, ours) in (("sat", "proven"), ("unsat", "broken")):
                wrong.append(f"{file}: {said}, but {ours}")
            if said == "sat":
                point = np.array([re.findall(r"x\d+ = (-?[\d.]+)", text)], np.float32)
                logits = run.net.logits(point)[0]
                if abs(point - x).max() > phi + 1e-5 or np.delete(logits, y[0]).max() < logits[y[0]] - TIES:
                    wrong.append(f"{file}: its point is none")
    words = ("proven", "unknown", "broken")
    rows = [[said, *(str(counts[said, ours]) for ours in words)] for said in ("unsat", "undecided", "sat")]
    print_table(f"{name}, phi {phi:g}: images by what Marabou and nnlite say", ["Marabou", *words], rows)
    print(*wrong or ["no contradiction"], sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
