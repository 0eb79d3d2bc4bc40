"""Scores: losses, generated answers, and the metrics that compare answers with references."""
