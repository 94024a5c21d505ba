"""A loaded model that answers request bodies. Importing this imports MLflow."""

from pathlib import Path

import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, ErrorCode

from serving.formats import BadRequest, Reader, answer


class Scoring:
    """A version loaded from its folder."""

    refusals = (BadRequest,)

    def __init__(self, folder: Path) -> None:
        self.model = mlflow.pyfunc.load_model(str(folder))
        metadata = self.model.metadata
        self._reader = Reader(metadata.get_input_schema(), metadata.get_params_schema())
        # the reader has held the rows and params against the signature, more strictly than
        # PyFuncModel.predict, which would take half a millisecond to do it once more
        self._python_model = self.model.unwrap_python_model()

    def answer(self, body: bytes, content_type: str) -> bytes:
        """The predictions for a body, as JSON. Raises BadRequest where it is not usable."""
        table, params = self._reader.read(body, content_type)
        try:
            predictions = self._python_model.predict(None, table, params)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(BAD_REQUEST):
                raise
            raise BadRequest(422, str(error.message)) from error  # the model's own sentence
        return answer(predictions)
