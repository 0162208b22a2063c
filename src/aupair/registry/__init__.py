"""MLflow: runs of the flow, versions of the registered model, and the conditions for their promotion."""
