"""The contract of methods and metrics, for those of other packages: ``python -m harness.testing my_pkg``."""
