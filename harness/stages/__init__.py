"""One module for each value of ``stage`` besides ``run``."""
