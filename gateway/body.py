"""Bodies of requests: JSON, strictly, or an error that says what it is."""

from typing import Any

from flask import Request, Response, request
from pydantic_core import from_json
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from gateway.errors import Problem


def discard_rest(response: Response) -> Response:
    """Be done with what a request that is answered now still holds, or with its connection.

    gunicorn loses a client's next request when this one's body arrives after its answer.
    """
    finish = getattr(request.environ["wsgi.input"], "finish", None)  # see gateway.incoming
    if finish:
        limit = request.max_content_length or 0
        finish(limit if (request.content_length or 0) <= limit else 0)
    return response


class JsonRequest(Request):
    """Reads JSON with pydantic's parser, which bounds the depth and refuses NaN."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body; an absent one counts as an empty object.

        Raises Problem whatever `silent` says: 408, 413, 415, 400 for broken JSON.
        """
        data = self.get_data(cache=False)  # nothing reads it twice
        self._require_complete(data)
        if not data:
            return {}
        if self.mimetype != "application/json":
            raise Problem("unsupported-media-type", "send Content-Type: application/json")
        try:
            value = from_json(data, allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            # the parser's message holds a position, never the text
            raise Problem("invalid-json", f"{error}") from None
        if isinstance(value, str):
            raise Problem("invalid-field", "the body: has to be an object or a list",
                          {"errors": [{"field": "", "reason": "has to be an object or a list"}]})
        return value

    def _require_complete(self, data: bytes) -> None:
        # gunicorn ends the stream when the client is gone, and werkzeug at the limit: neither says
        if self.content_length is None:
            if self.max_content_length and len(data) >= self.max_content_length:
                raise RequestEntityTooLarge
        elif len(data) < self.content_length:
            raise ClientDisconnected
