"""Rows on their way from files or the hub to padded batches of token ids."""
