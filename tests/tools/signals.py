"""Trainings that get SIGINT or SIGTERM at random moments: each must end with 130, and one line at most.

    python tests/tools/signals.py 200

prints how they ended. The first moments belong to Python itself, and to NumPy, which `import nnlite` loads: until then
a signal ends a program as it ends any other one in Python.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from tempfile import TemporaryDirectory

CALL = [sys.executable, "-c", "from nnlite.cli.start import start; start()"]
TRAIN = [*CALL, "train", "--hidden", "64", "--epochs", "1000", "--overwrite"]
IMPORTED = "import time; began = time.perf_counter(); import nnlite; print(time.perf_counter() - began)"


def main(count: int) -> None:
    """Send `count` signals, and print what came of them."""
    rng, ended = random.Random(0), Counter[str]()
    loading = float(subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, check=True).stdout)
    for k in range(count):
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]
        with (
            TemporaryDirectory() as folder,
            subprocess.Popen(
                TRAIN, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            seconds = rng.uniform(0, 4)
            time.sleep(seconds)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1].splitlines()
        progress = ("the paper's Rect", "training", " ", "100 %")
        lines = [line for line in said if not line.startswith(progress)]
        quiet = process.returncode == 130 and len(lines) <= 1
        ended[f"{'130, one line at most' if quiet else f'{process.returncode}, {len(lines)} lines'}"] += 1
        if not quiet:
            print(f"{number.name} after {seconds:.2f} s: {process.returncode}, {lines[-1:]}", file=sys.stderr)
    print(f"to import nnlite takes {loading:.2f} s here")
    for how, times in ended.most_common():
        print(f"{how}: {times}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
