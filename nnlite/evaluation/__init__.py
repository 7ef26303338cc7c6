"""How nets do under attack."""
