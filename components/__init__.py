"""The stages as KFP components, one file each, named as the stage; a body calls `aupair.kubeflow.step`.

A component's source is embedded in the compiled pipeline; the package it calls comes with the image. Its arguments are
the stage's artifacts, sections of the params, and the trial, by the names of `aupair.stages.FLOW`; a test checks this.
"""

IMAGE = "aupair"
"""A placeholder: `aupair pipeline compile --image` names the real one on every task."""
