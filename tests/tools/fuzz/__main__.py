"""A long run of hostile inputs, guided by coverage, for one of the readers of files.

    pip install atheris
    python tests/tools/fuzz idx --inputs 100000

An input may take one second, and the process 200 MB: more ends the run. Half of the inputs are changed byte by byte,
the others of files with a form so that they keep it. The exit code is 0 where nothing but NnliteError came out, in one
line that can be printed.
"""

import argparse
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections import Counter

import atheris

with atheris.instrument_imports(include=["nnlite"]):
    from readers import DIFFERS, FOLDER, READ, READERS, REFUSED

    from nnlite.errors import LIMIT, NnliteError


class Run:
    """Counts what a reader makes of its inputs, and says so after the last one."""

    def __init__(self, reader: str, inputs: int) -> None:
        self.reader, self.inputs, self.read = reader, inputs, READERS[reader][0]
        self.outcomes: Counter[str] = Counter()
        self.slowest, self.first = 0.0, peak_memory()

    def one_input(self, content: bytes) -> None:
        start = time.process_time()  # what others do on this machine does not count
        try:
            outcome = self.read(content)
        except NnliteError as error:
            outcome = REFUSED
            if not str(error).isprintable() or len(str(error)) > LIMIT:
                outcome = f"a message that is no line of text: {str(error)[:200]!r}"
        except Exception as error:
            outcome = f"{type(error).__name__}, which is not allowed"
            print(f"{content!r}\n{traceback.format_exc()}", file=sys.stderr)
        self.slowest = max(self.slowest, time.process_time() - start)
        self.outcomes[outcome] += 1
        if self.outcomes.total() == self.inputs:
            self.report()

    def report(self) -> None:
        print(f"{self.reader}: {self.inputs:,} inputs")
        for outcome, count in self.outcomes.most_common():
            print(f"  {outcome}: {count:,}")
        print(f"  peak memory: {peak_memory():.0f} MB, {self.first:.0f} MB of it before the first input")
        print(f"  slowest input: {1000 * self.slowest:.1f} ms", flush=True)
        shutil.rmtree(FOLDER)
        fine = self.outcomes.keys() <= {READ, DIFFERS, REFUSED} and self.slowest < 1
        os._exit(not fine)  # libFuzzer itself would go on

    def change(self, content: bytes, size: int, seed: int) -> bytes:
        """Return other bytes, `size` at most; half of the time they keep the form of the file."""
        rng = random.Random(seed)
        if rng.random() < 0.5:
            try:
                return READERS[self.reader][2](content, rng)[:size]
            except Exception:
                pass  # it has no form any more
        return atheris.Mutate(content, size)


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


parser = argparse.ArgumentParser(prog="python tests/tools/fuzz", description=__doc__.partition("\n")[0])
parser.add_argument("reader", choices=READERS, help="unpacked: what was packed into an idx file; rotated: the cache")
parser.add_argument("--inputs", type=int, default=100_000, help="how many; default: 100000")
parser.add_argument("--seed", type=int, default=1, help="of the fuzzer; default: 1")
chosen = parser.parse_args()
corpus = FOLDER / "corpus"
corpus.mkdir()
for number, seed in enumerate(READERS[chosen.reader][1]):
    (corpus / str(number)).write_bytes(seed)
limits = ["-timeout=600", "-rss_limit_mb=200", "-max_len=16384", "-len_control=0", "-mutate_depth=2", "-verbosity=0"]
run = Run(chosen.reader, chosen.inputs)
further = {"custom_mutator": run.change} if READERS[chosen.reader][2] else {}
atheris.Setup(["fuzz", str(corpus), *limits, f"-seed={chosen.seed}"], run.one_input, **further)
atheris.Fuzz()
