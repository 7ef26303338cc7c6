"""Bridges to other libraries, one file each; each needs its library, this file none."""
