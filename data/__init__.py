"""Data files that ship with nnlite; nnlite.datasets reads them."""
