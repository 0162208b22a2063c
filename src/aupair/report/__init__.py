"""The report on an evaluation: figures, tables and one page."""
