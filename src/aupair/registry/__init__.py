"""MLflow runs, the model bundle, its versions and their promotion; the recognizer that serves it."""
