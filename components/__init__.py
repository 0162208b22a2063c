"""KFP components, one file for each stage of the flow and each step of prediction; a body calls `aupair.kubeflow`.

The source of a component is embedded in the compiled pipeline; the package that it imports is in the image. The arguments of
a stage's component are the stage's artifacts, params sections and trial, named as in `aupair.stages.FLOW`.
"""

IMAGE = "aupair"
"""A placeholder: `aupair pipeline compile --image` names the real one on every task."""
