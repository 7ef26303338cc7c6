"""Many nets: settings times seeds, trained in stacks, by a pool of processes or on a cluster."""

from nnlite.grid.cluster import run_on_cluster
from nnlite.grid.combinations import make_grid, read_grid
from nnlite.grid.jobs import group_into_stacks, pending, train_jobs
from nnlite.grid.pool import run_in_pool

__all__ = ["group_into_stacks", "make_grid", "pending", "read_grid", "run_in_pool", "run_on_cluster", "train_jobs"]
