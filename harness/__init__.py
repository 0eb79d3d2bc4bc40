"""A research harness that compares parameter-efficient fine-tuning methods: ``python -m harness --help``."""
