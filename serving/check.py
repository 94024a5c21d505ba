"""Load a version in a process of its own and make it answer, before it may serve.

    python -m serving.check FOLDER NUMBER PARENT

Prints one line that says why it must not serve and exits with 1, or exits with 0. What a version's
code prints or raises stays in this process.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from serving.lifeline import end_with_parent

SMOKE_TEXTS = ("Desenvolvedor Java com SQL e inglês, 5 anos de experiência.", "", "ção €uro\x00 🙂")
_SCORES = ("probability", "confidence", "match")


class Refused(Exception):
    """Why the version must not serve, in one sentence."""


def check(folder: Path, number: int) -> None:
    """Load the version and score, explain and rank with it. Raises Refused."""
    from serving.scoring import Scoring

    try:
        scoring = Scoring(folder)
    except Exception as error:
        raise Refused(f"it does not load ({type(error).__name__})") from error
    columns = scoring.model.metadata.get_input_schema().input_names()
    rows = [dict.fromkeys(columns, text) for text in SMOKE_TEXTS]
    _scores(_predictions(scoring, rows, {}), len(rows), number)
    explained = _predictions(scoring, rows[:1], {"reasons": 3})
    _scores(explained, 1, number)
    _require(isinstance(explained[0].get("reasons"), dict), "it gives no reasons when asked")
    ranked = _predictions(scoring, rows[:1], {"top_k": 1})
    if ranked:
        _scores(ranked, 1, number)
        _require({"vacancy", "rank", "codigo"} <= ranked[0].keys(), "its ranking has no codes")


def _predictions(scoring: Any, rows: list[dict[str, str]], params: dict[str, int]) -> Any:
    body = json.dumps({"dataframe_records": rows, "params": params}).encode()
    try:
        answer = scoring.answer(body, "application/json")
    except Exception as error:
        kind = "a number that is not finite" if type(error).__name__ == "NotFinite" else (
            f"an error ({type(error).__name__})")
        raise Refused(f"it answers with {kind}") from error
    return json.loads(answer)["predictions"]


def _scores(predictions: list[dict[str, Any]], rows: int, number: int) -> None:
    _require(len(predictions) == rows, "it does not answer one result a row")
    for result in predictions:
        for name in _SCORES:
            value = result.get(name)
            _require(isinstance(value, float) and 0 <= value <= 1,
                     f"its {name} is not a number from 0 to 1")
        _require(abs(result["confidence"] - abs(2 * result["probability"] - 1)) < 1e-9,
                 "its confidence is not |2 probability - 1|")
        _require(result.get("prediction") in ("Contratado", "Não contratado"),
                 "its prediction is not one of the two outcomes")
        _require(result.get("model_version") == number, "it answers with another model_version")


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise Refused(why)


def main() -> int:
    """Run as a program."""
    folder, number, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    end_with_parent(parent, signal.SIGKILL)
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        try:
            check(folder, number)
        except Refused as error:
            why = str(error)
        else:
            return 0
    print(why)
    return 1


if __name__ == "__main__":
    sys.exit(main())
