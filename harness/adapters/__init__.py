"""Adapters on a base model: PEFT's models made, initialized, saved and loaded, with what PEFT leaves to its caller."""
