"""Reading the three files as ingest does: seconds and peak memory, to compare with json.load.

    python -m benchmarks.reading DATA_DIR RESULT.json
"""

import gc
import json
import resource
import sys
import time
from pathlib import Path

from steps.ingest import candidates_table, pairs_table, vacancies_table
from steps.records import Candidate, ProspectList, Vacancy, batches, read


def main(data_dir: Path, result: Path) -> None:
    gc.freeze()  # as every step does (steps/session.py)
    began = time.perf_counter()
    vacancies, _ = vacancies_table(read(data_dir / "vagas.json", Vacancy))
    candidates, _ = candidates_table(batches(data_dir / "applicants.json", Candidate))
    pairs_table(read(data_dir / "prospects.json", ProspectList), vacancies, candidates)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result.write_text(json.dumps({"seconds_reading": seconds, "peak_memory_mb": peak}),
                      encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
