"""The training loop on transformers' Trainer, with checkpoints, validation, sharding and distillation."""
