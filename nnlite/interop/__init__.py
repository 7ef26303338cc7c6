"""Bridges to other libraries, and the forms that other programs read, one file each; this file needs none of them."""
