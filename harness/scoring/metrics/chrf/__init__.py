"""chrF."""
