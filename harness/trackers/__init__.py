"""Experiment trackers that show what the record holds."""
