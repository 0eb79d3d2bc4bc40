"""The process itself: others that share its runs, signals, memory and seeds."""
