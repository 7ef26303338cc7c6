"""Many nets: settings times seeds, trained in stacks, by a pool of processes or on a cluster."""

from nnlite.grid.cluster import run_on_cluster
from nnlite.grid.combinations import make_grid, read_grid
from nnlite.grid.jobs import group_into_stacks, pending, train_jobs
from nnlite.grid.pool import run_in_pool
from nnlite.grid.summary import best_of, group_by_seed, heat_maps, pgd_accuracies

__all__ = ["best_of", "group_by_seed", "group_into_stacks", "heat_maps", "make_grid", "pending", "pgd_accuracies"]
__all__ += ["read_grid", "run_in_pool", "run_on_cluster", "train_jobs"]
