"""Mathematical answer."""
