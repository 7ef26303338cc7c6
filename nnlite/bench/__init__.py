"""Races beside the matrix products and other libraries."""

from nnlite.bench.peers import contestants
from nnlite.bench.race import Timing, run_race
from nnlite.bench.report import race_report, read_reports
from nnlite.bench.workload import Workload

__all__ = ["Timing", "Workload", "contestants", "race_report", "read_reports", "run_race"]
