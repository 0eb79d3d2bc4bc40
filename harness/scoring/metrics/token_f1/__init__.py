"""Token F1."""
