"""What a run leaves behind: its record, its files, the lock that guards them, and where its result comes from."""
