"""`aupair ablate`: does each part of the method earn its place? Rows of one table, each a run with other settings."""
