"""The paper as data, and its reproduction."""
