"""The configuration: its types, the names in it, how it is composed, and what is said about wrong input."""
