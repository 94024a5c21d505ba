"""Scoring pairs with the described pipeline, to compare with the entry point `score`: the model is
loaded and the pairs are read before the time begins.

    python -m benchmarks.plain_scoring MODEL.joblib PAIRS.parquet RESULT.json --rows N
"""

import argparse
import json
import time
from pathlib import Path

import joblib
import pandas as pd


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("pairs", type=Path)
    arguments.add_argument("result", type=Path)
    arguments.add_argument("--rows", type=int, required=True)
    given = arguments.parse_args()
    model = joblib.load(given.model)
    pairs = pd.read_parquet(given.pairs)[:given.rows]
    began, used = time.perf_counter(), time.process_time()
    model.predict_proba(pairs)
    given.result.write_text(json.dumps({
        "rows_per_second": len(pairs) / (time.perf_counter() - began),
        "rows_per_cpu_second": len(pairs) / (time.process_time() - used),
    }), encoding="utf-8")


if __name__ == "__main__":
    main()
