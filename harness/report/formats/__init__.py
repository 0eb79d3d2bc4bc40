"""The forms of a report: one module for each file."""
