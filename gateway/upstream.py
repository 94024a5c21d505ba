"""The servers behind the gateway: the served model and MLflow's tracking server.

Pooled connections, a time-out on everything, and retries where asking twice does no harm. What
they say in an error stays here: the caller gets a Problem in our own words.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self, cast

import requests
from pydantic import TypeAdapter, ValidationError
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError
from urllib3.util.retry import Retry

from gateway.errors import Problem
from gateway.schemas import RankedCandidate, Score, ServedState
from gateway.settings import Settings

_log = logging.getLogger("gateway.upstream")

CONNECT_SECONDS = 3.0
MAXIMUM_UPSTREAM_BYTES = 8 * 1024 * 1024
"""What the model server is sent at most in one request (it takes four times as much)."""
PIECE_BYTES = 64 * 1024

_SCORES = TypeAdapter(list[Score])
_RANKED = TypeAdapter(list[RankedCandidate])


def no_model() -> Problem:
    """There is no production model yet.

    Made anew each time: an exception that is raised again keeps the frames of every time before,
    and with them the texts that were to be scored.
    """
    return Problem("no-production-model", "no production model yet: POST /train first",
                   headers={"Retry-After": "30"})


class _RetryBrokenConnections(Retry):
    """Retries a connection that was refused or broke off, as when a worker is replaced.

    A server that is merely slow is not asked again: that would only add to its load.
    """

    def increment(self, *args: Any, **kwargs: Any) -> Self:
        error = kwargs.get("error")
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(*args, **kwargs)


def _session(retry: Retry, connections: int) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy, no .netrc: both ends are ours
    session.max_redirects = 0
    adapter = HTTPAdapter(max_retries=retry, pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class ModelServer:
    """The served model (`python -m serving`)."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.model_url
        self._timeout = (CONNECT_SECONDS, settings.model_timeout_seconds)
        # scoring has no side effect, so a POST may be repeated; this covers the swap of a version
        retry = _RetryBrokenConnections(
            total=4, connect=3, read=3, status=0, redirect=0, other=0, backoff_factor=0.1,
            allowed_methods=None, raise_on_status=False,
        )  # fmt: skip
        self._session = _session(retry, settings.threads)

    def score(
        self, columns: list[str], rows: list[list[str]], params: dict[str, float]
    ) -> list[Score]:
        """One score a row, in order. Raises Problem when there is none to be had."""
        scores = self._predict(columns, rows, params, _SCORES)
        if len(scores) != len(rows):
            _log.error("the model server answered %d rows for %d", len(scores), len(rows))
            raise Problem("upstream-failed", "the model server's answer makes no sense")
        return scores

    def rank_pool(
        self, columns: list[str], row: list[str], params: dict[str, float]
    ) -> list[RankedCandidate]:
        """The best of the model's own pool for one vacancy. Raises Problem."""
        return self._predict(columns, [row], params, _RANKED)

    def state(self) -> ServedState:
        """What the server says of itself. Raises Problem when it says nothing."""
        response = self._send("GET", "/health")
        try:
            return ServedState.model_validate_json(response.content)
        except ValidationError:
            raise Problem("upstream-failed", "the model server's answer makes no sense") from None

    def _predict(
        self, columns: list[str], rows: list[list[str]], params: dict[str, float],
        answer: TypeAdapter,
    ) -> list:  # fmt: skip
        response = self._send("POST", "/invocations", _Rows(columns, rows, params))
        if response.status_code == 503:
            if self.state().state == "waiting":
                raise no_model()
            raise Problem("unavailable", "the model server is busy: try again shortly",
                          headers={"Retry-After": "5"})
        if response.status_code == 413:
            raise _too_large()
        if response.status_code != 200:
            _log.error("the model server answered %d to /invocations", response.status_code)
            kind = "upstream-timeout" if response.status_code == 504 else "upstream-failed"
            raise Problem(kind, "the model server could not score this")
        try:
            return answer.validate_python(json.loads(response.content)["predictions"])
        except (ValueError, KeyError, TypeError, RecursionError):
            _log.error("the model server's answer does not follow the contract")
            raise Problem("upstream-failed", "the model server's answer makes no sense") from None

    def _send(self, method: str, path: str, body: "_Rows | None" = None) -> requests.Response:
        try:
            return self._session.request(
                method, self._url + path, data=cast(Any, body), timeout=self._timeout,
                allow_redirects=False,
                headers={"Content-Type": "application/json"} if body else None,
            )  # fmt: skip
        except requests.Timeout:
            raise Problem("upstream-timeout", "the model server took too long") from None
        except requests.RequestException as error:
            if _timed_out(error):
                raise Problem("upstream-timeout", "the model server took too long") from None
            _log.error("the model server does not answer: %s", type(error).__name__)
            raise Problem("upstream-failed", "the model server does not answer") from None


class _Rows:
    """The body of a request to score, which is never in memory as a whole.

    In a ranking it is many times as large as what came in. It can be sent again, for a retry.
    """

    def __init__(
        self, columns: list[str], rows: list[list[str]], params: dict[str, float]
    ) -> None:
        """Raises Problem when it would be larger than what is sent at most."""
        self._head = f'{{"dataframe_split": {{"columns": {json.dumps(columns)}, "data": ['.encode()
        self._rows = rows
        self._tail = f']}}, "params": {json.dumps(params)}}}'.encode()
        self._length = 0
        for piece in self:
            self._length += len(piece)
            if self._length > MAXIMUM_UPSTREAM_BYTES:
                raise _too_large()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        piece = bytearray(self._head)
        for n, row in enumerate(self._rows):
            # not escaped to ASCII: that would make Portuguese texts up to three times as long
            piece += (b"," if n else b"") + json.dumps(row, ensure_ascii=False).encode()
            if len(piece) > PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece + self._tail)


def _too_large() -> Problem:
    return Problem("too-large", "the rows are too large together (in a ranking the vacancy's texts "
                                "count once for each candidate): send fewer at a time")


class MissingError(Exception):
    """The tracking server has no such thing."""


class ExistsError(Exception):
    """The tracking server has such a thing already."""


class TrackingServer:
    """MLflow's tracking server and registry, over its REST API."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.tracking_uri + "/api/2.0/mlflow/"
        self._timeout = (CONNECT_SECONDS, settings.tracking_timeout_seconds)
        retry = _RetryBrokenConnections(
            total=3, connect=3, read=2, status=0, redirect=0, other=0, backoff_factor=0.1,
            allowed_methods=["GET"],  # what is read may be read twice
        )  # fmt: skip
        self._session = _session(retry, settings.threads)
        if settings.tracking_username:
            password = settings.tracking_password
            self._session.auth = (
                settings.tracking_username, password.get_secret_value() if password else "",
            )  # fmt: skip

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Read. Raises MissingError or Problem."""
        return self._call("GET", path, params=query)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Write, or search. Raises MissingError or Problem."""
        return self._call("POST", path, json=body)

    def pages(self, method: str, path: str, items: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of a search, page after page."""
        while True:
            page = (self.get if method == "GET" else self.post)(path, **query)
            yield from page.get(items, [])
            if not page.get("next_page_token"):
                return
            query["page_token"] = page["next_page_token"]

    def experiment_id(self, name: str) -> str:
        """The id of the experiment, which is made when it is not there.

        Raises Problem when it was deleted: MLflow keeps its name, and takes no runs for it.
        """
        with suppress(MissingError):
            return self._known_experiment(name)
        try:
            return str(self.post("experiments/create", name=name)["experiment_id"])
        except ExistsError:  # another thread, worker or training was faster
            return self._known_experiment(name)

    def _known_experiment(self, name: str) -> str:
        found = self.get("experiments/get-by-name", experiment_name=name)["experiment"]
        number = str(found["experiment_id"])
        if found.get("lifecycle_stage") == "deleted":
            raise Problem("conflict", f"the experiment {name} was deleted in MLflow: restore it "
                                      f"with `mlflow experiments restore -x {number}`")
        return number

    def run(self, run_id: str) -> dict[str, Any]:
        """A run. Raises MissingError or Problem."""
        return self.get("runs/get", run_id=run_id)["run"]

    def tag_run(self, run_id: str, key: str, value: str) -> None:
        """Set a tag on a run."""
        self.post("runs/set-tag", run_id=run_id, key=key, value=value)

    def end_run(self, run_id: str, status: str, end_time: int) -> None:
        """Give a run its final status; `end_time` in milliseconds since 1970."""
        self.post("runs/update", run_id=run_id, status=status, end_time=end_time)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._session.request(
                method, self._url + path, timeout=self._timeout, allow_redirects=False, **options
            )
        except requests.Timeout:
            raise Problem("upstream-timeout", "the MLflow server took too long") from None
        except requests.RequestException as error:
            if _timed_out(error):
                raise Problem("upstream-timeout", "the MLflow server took too long") from None
            _log.error("the MLflow server does not answer: %s", type(error).__name__)
            raise Problem("upstream-failed", "the MLflow server does not answer") from None
        content: Any = None
        try:
            content = response.json()
        except ValueError:
            content = None
        if response.status_code == 200 and isinstance(content, dict):
            return content
        code = content.get("error_code") if isinstance(content, dict) else None
        if code == "RESOURCE_DOES_NOT_EXIST":
            raise MissingError(path)
        if code == "RESOURCE_ALREADY_EXISTS":
            raise ExistsError(path)
        if response.status_code in (401, 403):
            _log.error(
                "the MLflow server refuses the gateway (%d): check MLFLOW_TRACKING_USERNAME, "
                "MLFLOW_TRACKING_PASSWORD and the server's --allowed-hosts", response.status_code,
            )  # fmt: skip
            raise Problem("upstream-failed", "the MLflow server refuses the gateway")
        _log.error("the MLflow server answered %d (%s) to %s", response.status_code, code, path)
        raise Problem("upstream-failed", "the MLflow server failed")


def _timed_out(error: requests.RequestException) -> bool:
    """A read time-out that our retry let through comes wrapped as a connection error."""
    return bool(error.args) and isinstance(error.args[0], ReadTimeoutError)
