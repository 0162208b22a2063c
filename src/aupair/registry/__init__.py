"""MLflow: runs of the flow, the versions of the registered model, and the conditions for promoting them."""
