"""Tables from records: on the console, as CSV and as Markdown."""
