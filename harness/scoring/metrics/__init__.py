"""Metrics of generated answers, each a module that ``evaluate.load`` takes from its folder."""
