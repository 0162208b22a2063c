"""Variants of the flow, run in a separate folder: the rows of `aupair ablate` and the student of `aupair distill`."""
