"""Where samples come from."""

from nnlite.datasets.catalog import DATASETS, load, locate
from nnlite.datasets.rotation import rotated
from nnlite.datasets.samples import Dataset, Samples, check_samples

__all__ = ["DATASETS", "Dataset", "Samples", "check_samples", "load", "locate", "rotated"]
