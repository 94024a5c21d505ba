"""What MLflow loads (models from code)."""

from mlflow.models import set_model

from jobmatch_pyfunc.model import JobMatch

set_model(JobMatch())
