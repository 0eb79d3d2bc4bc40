"""Names the target."""
