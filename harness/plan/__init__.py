"""One run's validated, frozen settings: what they are, what they depend on, and what is refused."""
