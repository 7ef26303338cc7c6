"""Bridges to other libraries, one file each; each needs its library, this file none."""

ART_ATTACKS = ("square", "autopgd", "deepfool", "carlini", "hopskipjump")
"""The names that `nnlite.interop.art.ArtAttack` knows."""
