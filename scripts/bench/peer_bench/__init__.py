"""What ``scripts/bench/peers.py`` is made of; nothing here imports torch, but for the scripts in ``drivers/``."""
