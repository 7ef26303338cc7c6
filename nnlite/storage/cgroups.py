"""Control groups: what a container, or a job of a cluster, may use of the machine; Linux keeps it in files."""

import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def folders(*controllers: str) -> Iterator[tuple[str, Path]]:
    """Yield the folders of the groups that this process is in, each with the controller that they are of.

    controllers: those that are looked for, as /proc/self/cgroup names them; "" stands for all of version 2.
    """
    if sys.platform != "linux":
        return
    for line in read(Path("/proc/self/cgroup")).splitlines():
        _, controller, place = line.split(":", 2)
        if controller in controllers:
            root = ROOT / controller
            own = root / place.lstrip("/")
            for folder in {root, *(one for one in (own, *own.parents) if root in one.parents)}:
                yield controller, folder


def read(path: Path) -> str:
    """Return what a file says, without the space around it, or "" where it cannot be read."""
    with suppress(OSError, ValueError):
        return path.read_text("utf-8").strip()
    return ""


def processors() -> float:
    """Return how many processors the groups of this process may keep busy, maybe a fraction; inf for no limit."""
    least = math.inf
    for controller, folder in folders("", "cpu", "cpu,cpuacct"):
        if controller:
            quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")  # -1 for no limit
        else:
            quota, _, period = read(folder / "cpu.max").partition(" ")  # "max" for no limit
        if quota.isdigit() and period.isdigit() and int(period):
            least = min(least, int(quota) / int(period))
    return least
