"""Exact match."""
