"""Data files that ship with nnlite; nnlite.datasets.catalog reads them."""
