"""Entry points of the MLflow project: each verb here is one `mlflow run . -e VERB`."""
