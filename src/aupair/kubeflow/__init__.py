"""Kubeflow Pipelines (KFP): the code inside the components, and `aupair pipeline`, which compiles, runs and submits them."""
