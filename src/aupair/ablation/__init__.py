"""Variants of the flow, run beside it: the rows of `aupair ablate` and the student of `aupair distill`."""
