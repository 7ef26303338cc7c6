"""`python -m nnlite` is the command `nnlite`."""

from nnlite.cli.start import start

if __name__ == "__main__":
    start()
