"""Figures, tables and one page about an evaluation."""
