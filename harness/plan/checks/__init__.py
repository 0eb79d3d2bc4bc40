"""Faults of a configuration, by what they concern."""
