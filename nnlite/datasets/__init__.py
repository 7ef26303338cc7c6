"""Where samples come from."""

from nnlite.datasets.catalog import DATASETS, locate
from nnlite.datasets.description import Description, check_same
from nnlite.datasets.loading import load, reload
from nnlite.datasets.rotation import rotated
from nnlite.datasets.samples import Dataset, Samples, check_samples

__all__ = ["DATASETS", "Dataset", "Description", "Samples"]
__all__ += ["check_same", "check_samples", "load", "locate", "reload", "rotated"]
