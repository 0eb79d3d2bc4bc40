"""Pure functions of strings behind the metrics: no torch, no files, no state."""
