"""What the served model answers: MLflow's formats, and one clear sentence for everything else."""

import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from tests.serving.conftest import ROW, Registry, Served, serve

SECRET = "CPF 123.456.789-09 do Fulano"
OTHER = ROW | {"cv_pt": "Enfermeira com dez anos de UTI"}
ROWS = [ROW, OTHER, ROW]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("requests") / "state"
    with serve(registry.store.uri, state, MODEL_WORKERS="1") as served:
        served.answers_with(1)
        yield served


def predictions(answer: requests.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()["predictions"]


def test_an_answer_has_the_contract_of_the_model(served: Served) -> None:
    first, second, third = predictions(served.post({"dataframe_records": ROWS}))
    assert first == third
    assert first["match"] != second["match"]
    assert set(first) == {"probability", "prediction", "confidence", "match", "model_version"}
    assert 0 <= first["probability"] <= 1
    assert first["confidence"] == pytest.approx(abs(2 * first["probability"] - 1), abs=1e-12)
    assert first["prediction"] in ("Contratado", "Não contratado")
    assert first["model_version"] == 1


TABLE = pd.DataFrame(ROWS)


@pytest.mark.parametrize("body", [
    {"dataframe_split": TABLE.to_dict(orient="split")},
    {"dataframe_split": {"columns": list(TABLE), "data": TABLE.to_numpy().tolist()}},
    {"inputs": TABLE.to_dict(orient="list")},
    {"inputs": ROWS},
    {"instances": ROWS},
    {"dataframe_records": [ROW | {"codigo": 7}, *ROWS[1:]]},
], ids=["split with index", "split", "columns", "rows", "instances", "an unknown column"])
def test_every_json_format_gives_the_same_answer(served: Served, body: dict[str, Any]) -> None:
    assert predictions(served.post(body)) == predictions(served.post({"dataframe_records": ROWS}))


def test_csv_and_parquet_give_the_same_answer(served: Served) -> None:
    expected = predictions(served.post({"dataframe_records": ROWS}))
    csv = TABLE.to_csv(index=False).encode()
    parquet = io.BytesIO()
    TABLE.to_parquet(parquet)
    for body, kind in ((csv, "text/csv"), (csv, "text/csv; charset=utf-8"),
                       (parquet.getvalue(), "application/vnd.apache.parquet")):
        assert predictions(served.post(data=body, headers={"Content-Type": kind})) == expected


def test_one_row_may_come_without_lists(served: Served) -> None:
    assert predictions(served.post({"inputs": ROW})) == predictions(
        served.post({"dataframe_records": [ROW]}))


def test_missing_texts_count_as_empty(served: Served) -> None:
    bare = {k: v for k, v in ROW.items() if k != "titulo_vaga"}
    expected = predictions(served.post({"dataframe_records": [ROW | {"titulo_vaga": ""}]}))
    assert predictions(served.post({"dataframe_records": [bare]})) == expected
    assert predictions(served.post({"dataframe_records": [ROW | {"titulo_vaga": None}]})
                       ) == expected


def test_params_change_the_answer(served: Served) -> None:
    body = {"dataframe_records": [ROW]}
    hired = predictions(served.post(body | {"params": {"threshold": 0}}))
    assert hired[0]["prediction"] == "Contratado"
    with_reasons = predictions(served.post(body | {"params": {"reasons": 3}}))[0]["reasons"]
    for reasons in with_reasons.values():
        total = sum(term["contribution"] for term in reasons["terms"])
        assert reasons["intercept"] + total + reasons["other"] == pytest.approx(reasons["logit"])


def test_the_pool_is_ranked_without_cvs(served: Served) -> None:
    vacancy = {k: v for k, v in ROW.items() if k != "cv_pt"}
    ranked = predictions(served.post({"dataframe_records": [vacancy], "params": {"top_k": 5}}))
    assert [row["rank"] for row in ranked] == [1, 2, 3, 4, 5]
    assert [row["match"] for row in ranked] == sorted((r["match"] for r in ranked), reverse=True)
    assert all(row["codigo"] and row["vacancy"] == 0 for row in ranked)


def test_ten_thousand_pairs_of_few_texts_are_quick_because_texts_are_analysed_once(
    served: Served,
) -> None:
    vacancies = [f"java {i} " * 800 for i in range(10)]
    cvs = [f"sql spring {i} " * 800 for i in range(100)]
    pairs = pd.DataFrame([
        ROW | {"principais_atividades": v, "cv_pt": c} for v in vacancies for c in cvs * 10])
    parquet = io.BytesIO()
    pairs.to_parquet(parquet)
    began = time.monotonic()
    answer = served.post(data=parquet.getvalue(),
                         headers={"Content-Type": "application/vnd.apache.parquet"})
    assert len(predictions(answer)) == 10_000
    assert time.monotonic() - began < 5


def test_brackets_in_texts_are_not_taken_for_rows(served: Served) -> None:
    for text in ("[{" * 300_000, '"[{\\' * 300_000):
        assert predictions(served.post({"dataframe_records": [ROW | {"cv_pt": text}]}))


def nested(depth: int) -> bytes:
    return b'{"dataframe_records":' + b"[" * depth + b"]" * depth + b"}"


def records(**changes: Any) -> bytes:
    return json.dumps({"dataframe_records": [ROW | {"cv_pt": SECRET} | changes]}).encode()


def without(column: str) -> bytes:
    row = {k: v for k, v in ROW.items() if k != column}
    return json.dumps({"dataframe_records": [row]}).encode()


def with_params(**params: Any) -> bytes:
    return json.dumps({"dataframe_records": [ROW | {"cv_pt": SECRET}], "params": params}).encode()


ONE_TABLE = ("the body must be an object with exactly one of dataframe_records, dataframe_split, "
             "inputs")
NO_ROW = ("there is no row with the model's columns: titulo_vaga, principais_atividades, "
          "competencia_tecnicas_e_comportamentais, cv_pt")

BAD = {
    "not JSON": (b'{"dataframe_records": [' + SECRET.encode(), 400, "the body is not JSON"),
    "empty": (b"", 400, "the body is not JSON"),
    "invalid UTF-8": (b'{"dataframe_records": [{"cv_pt": "' + SECRET.encode() + b'\xff"}]}', 400,
                      "the body is not UTF-8"),
    "half a surrogate": (b'{"dataframe_records": [{"cv_pt": "\\ud800"}]}', 400,
                         "the body is not JSON"),
    "a million rows": (b'{"dataframe_records": [' + b"{}," * 1_000_000 + b"{}]}", 413,
                       "there may be at most 200000 rows"),
    "a million rows after texts": (
        b'{"dataframe_records": [' + records()[23:-2] + b',{"cv_pt":"\\\\"}' + b",{}" * 1_000_000
        + b"]}", 413, "there may be at most 200000 rows"),
    "a text without end": (b'{"dataframe_records": [' + b'"\\' * 1_000_000 + b"[" * 500_000, 400,
                           "the body is not JSON"),
    "deep nesting": (nested(100_000), 400, "the body is nested too deeply"),
    "Infinity": (b'{"dataframe_records": [{"cv_pt": Infinity}]}', 400, "the body is not JSON"),
    "huge number": (b'{"dataframe_records": [{"cv_pt": 1e999}]}', 400, "the body is not JSON"),
    "a list": (b"[1]", 422, ONE_TABLE),
    "no table": (b"{}", 422, ONE_TABLE),
    "two tables": (b'{"dataframe_records": [], "inputs": []}', 422, ONE_TABLE),
    "no list": (b'{"dataframe_records": "x"}', 422,
                "dataframe_records must be a list of objects"),
    "no objects": (b'{"dataframe_records": [1]}', 422,
                   "dataframe_records must be a list of objects"),
    "empty list": (b'{"dataframe_records": []}', 422, NO_ROW),
    "empty columns": (b'{"inputs": {"cv_pt": []}}', 422, "column competencia_tecnicas_e_"
                      "comportamentais is missing"),
    "no columns": (b'{"dataframe_records": [{}]}', 422, NO_ROW),
    "unequal columns": (b'{"inputs": {"cv_pt": ["a"], "titulo_vaga": []}}', 422,
                        "the columns of inputs must be of equal length"),
    "ragged split": (b'{"dataframe_split": {"columns": ["cv_pt"], "data": [[]]}}', 422,
                     "dataframe_split.data must be lists of as many values as there are columns"),
    "odd split": (b'{"dataframe_split": {"columns": ["cv_pt"], "data": {}}}', 422,
                  "dataframe_split must be an object with the lists columns and data"),
    "missing column": (without("principais_atividades"), 422,
                       "column principais_atividades is missing"),
    "missing CV": (without("cv_pt"), 422, "column 'cv_pt' is missing"),
    "number": (records(principais_atividades=7), 422,
               "column principais_atividades must hold texts (row 0 does not)"),
    "list for text": (records(cv_pt=[SECRET]), 422,
                      "column cv_pt must hold texts (row 0 does not)"),
    "object for text": (records(titulo_vaga={"a": SECRET}), 422,
                        "column titulo_vaga must hold texts (row 0 does not)"),
    "params list": (b'{"dataframe_records": [{"cv_pt": "a"}], "params": []}', 422,
                    "params must be an object"),
    "unknown param": (with_params(thresold=0.5), 422,
                      "params may only be: threshold, reasons, top_k"),
    "text param": (with_params(threshold=SECRET), 422, "params.threshold must be a number"),
    "broken param": (with_params(top_k=1.5), 422, "params.top_k must be a whole number"),
    "huge param": (with_params(top_k=10**300), 422, "params.top_k must be a whole number"),
    "truth param": (with_params(reasons=True), 422, "params.reasons must be a whole number"),
    "threshold": (with_params(threshold=2), 422, "params.threshold must be between 0 and 1"),
    "negative": (with_params(top_k=-1), 422, "params.top_k must be 0 to 100000"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_gets_one_sentence(served: Served, kind: str) -> None:
    body, status, sentence = BAD[kind]
    answer = served.post(data=body, headers=JSON)
    assert answer.json() == {"error": sentence}
    assert answer.status_code == status


@pytest.mark.parametrize(("body", "kind", "status", "sentence"), [
    (b"\xff\xfe\n1", "text/csv", 400, "the body is not UTF-8"),
    (b"", "text/csv", 400, "the body is not CSV with a header"),
    (b"a,b\n1,2,3\n1", "text/csv", 422, NO_ROW),
    (b"PAR1" + SECRET.encode(), "application/vnd.apache.parquet", 400,
     "the body is not a Parquet file"),
    (b"<a/>", "application/xml", 415, "the content type must be application/json, text/csv or "
     "application/vnd.apache.parquet"),
    (b"{}", "application/json; charset=latin-1", 415, "the charset must be UTF-8"),
    (b"{}", "", 415, "the content type must be application/json, text/csv or "
     "application/vnd.apache.parquet"),
])
def test_a_bad_body_of_another_type_gets_one_sentence(
    served: Served, body: bytes, kind: str, status: int, sentence: str
) -> None:
    answer = served.post(data=body, headers={"Content-Type": kind})
    assert answer.json() == {"error": sentence}
    assert answer.status_code == status


def test_fifty_megabytes_are_refused(served: Served) -> None:
    answer = served.post(data=records(cv_pt="x" * 50_000_000), headers=JSON)
    assert answer.status_code == 413
    assert answer.json() == {"error": "the body may be at most 32 MB"}


def test_fifty_megabytes_in_pieces_are_refused(served: Served) -> None:
    answer = served.post(data=(b" " * 1_000_000 for _ in range(50)), headers=JSON)
    assert answer.status_code == 413


def test_compressed_bodies_are_refused(served: Served) -> None:
    answer = served.post(data=b"x", headers=JSON | {"Content-Encoding": "gzip"})
    assert answer.json() == {"error": "the body must not be compressed"}
    assert answer.status_code == 415


def test_a_parquet_file_of_eight_hundred_gigabytes_of_text_is_harmless(served: Served) -> None:
    many = pd.DataFrame(
        {name: pd.Categorical(["x" * 1_000_000]).repeat(200_000) for name in ROW})
    parquet = io.BytesIO()
    many.to_parquet(parquet)
    assert len(parquet.getvalue()) < 2_000_000
    answer = served.post(data=parquet.getvalue(),
                         headers={"Content-Type": "application/vnd.apache.parquet"})
    assert len(predictions(answer)) == 200_000
    assert served.version() == 1


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/", 404), ("GET", "/docs", 404), ("GET", "/../etc/passwd", 404),
    ("GET", "/invocations", 405), ("POST", "/health", 405), ("DELETE", "/ready", 405),
])
def test_other_paths_and_methods_get_one_sentence(
    served: Served, method: str, path: str, status: int
) -> None:
    answer = requests.request(method, served.url + path, timeout=10)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_a_client_that_goes_away_harms_nobody(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    assert served.version() == 1


def test_large_bodies_are_held_up_to_a_limit_and_rows_still_answered(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    megabytes = 30
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as open_:
        waiting = []
        for _ in range(8):  # 240 MB of at most 256, none of them complete
            connection = open_.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(head % (megabytes * 2**20 + 1) + b" " * (megabytes * 2**20))
            waiting.append(connection)
        deadline = time.monotonic() + 20
        while (answer := served.post(data=b" " * 31 * 2**20, headers=JSON)).status_code != 503:
            assert time.monotonic() < deadline, "the bodies are not counted"
        assert answer.json() == {"error": "too many large requests at once: try again"}
        assert answer.headers["Retry-After"] == "1"
        assert served.version() == 1
    deadline = time.monotonic() + 20
    while served.post(data=b" " * 31 * 2**20, headers=JSON).status_code == 503:
        assert time.monotonic() < deadline, "the bodies are counted for ever"
        time.sleep(0.1)


def test_no_text_of_a_request_is_logged(served: Served) -> None:
    for body, *_ in BAD.values():
        answer = served.post(data=body, headers=JSON)
        assert SECRET not in answer.text
    log = served.log.read_text()
    assert SECRET not in log
    assert "Traceback" not in log


def test_mlflows_own_client_finds_what_it_expects(served: Served) -> None:
    client = ScoringServerClient("127.0.0.1", int(served.url.rpartition(":")[2]))
    client.wait_server_ready(timeout=5)
    assert client.get_version() == mlflow.__version__
    table = pd.DataFrame([ROW, ROW | {"titulo_vaga": float("nan")}])  # a missing text
    answer = client.invoke(table).get_predictions()
    without_title = {name: text for name, text in ROW.items() if name != "titulo_vaga"}
    mine = predictions(served.post({"dataframe_records": [ROW, without_title]}))
    assert answer["match"].tolist() == pytest.approx([row["match"] for row in mine], abs=1e-12)


def test_a_header_of_many_columns_is_refused_at_once(served: Served) -> None:
    began = time.monotonic()
    for header in ("a," * 50_000, "\n  \n" + "a," * 50_000, "cv_pt,cv_pt"):
        answer = served.post(data=header + "\n", headers={"Content-Type": "text/csv"})
        assert answer.status_code == 422
        assert "columns must be distinct" in answer.json()["error"]
    assert time.monotonic() - began < 5


def test_a_small_file_of_many_rows_holds_nobody_up(served: Served) -> None:
    many = io.BytesIO()
    pd.DataFrame([ROW] * 100_000).to_parquet(many)
    with ThreadPoolExecutor(1) as client:
        asked = client.submit(served.post, data=many.getvalue(), headers={
            "Content-Type": "application/vnd.apache.parquet"})
        longest = 0.0
        while not asked.done():
            began = time.monotonic()
            assert requests.get(f"{served.url}/health", timeout=10).status_code == 200
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.01)
    assert asked.result().status_code == 200
    assert longest < 1
