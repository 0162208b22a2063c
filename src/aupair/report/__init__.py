"""The report on an evaluation: figures, tables and an HTML page."""
