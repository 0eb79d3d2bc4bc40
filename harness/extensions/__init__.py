"""Code of others: import paths, the source files behind them, and what installed packages offer."""
