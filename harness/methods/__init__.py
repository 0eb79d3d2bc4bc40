"""The methods: one module per family, and the table that lists them."""
