"""Races beside the matrix products and other libraries."""
