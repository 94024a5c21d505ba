"""Save the overlap model with the real signature: `python save_model.py DIRECTORY`."""

import sys
from pathlib import Path

import mlflow

from jobmatch_pyfunc.contract import signature

mlflow.pyfunc.save_model(
    sys.argv[1],
    python_model=str(Path(__file__).with_name("overlap_model.py")),
    signature=signature(0.5),
    pip_requirements=["mlflow"],
)
