"""Kubeflow Pipelines: compile, plan, run locally, submit; what runs inside a component."""
