"""One net: its settings, its training, its run."""
