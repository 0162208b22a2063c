"""Kubeflow Pipelines (KFP): the code that components run, and that of `aupair pipeline` (compile, run, submit)."""
