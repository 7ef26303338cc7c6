"""Files that stand whole or not at all, and files from strangers."""
