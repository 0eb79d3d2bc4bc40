"""Intervals, comparisons and noise floors over seeds and rows, and what they say in words. Plain data in and out."""
