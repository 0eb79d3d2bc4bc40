"""Many cells in one command: the grid or study that makes them, and the processes, here or elsewhere, that run them."""
