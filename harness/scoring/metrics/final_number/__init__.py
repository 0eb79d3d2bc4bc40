"""Final number."""
