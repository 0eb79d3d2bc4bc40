"""Base models: where they come from, how they are loaded, quantized, pruned, shared and counted."""
