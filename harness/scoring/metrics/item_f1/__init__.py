"""Item F1."""
