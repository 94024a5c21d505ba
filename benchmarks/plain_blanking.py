"""Blanking contact details and names as people would in the described pipeline's loop: with `re`.

    python -m benchmarks.plain_blanking DATA_DIR RESULT.json CVS

Writes the seconds that every CV would take, from the first CVS of them.
"""

import json
import re
import sys
import time
from pathlib import Path

from steps.records import Candidate, read
from steps.redaction import ADDRESS, PERSONAL


def blanked(text: str, name: str | None) -> str:
    """A text without contact details and without the person's name, whatever its case."""
    if name and " " in name.strip():
        text = re.sub(re.escape(name.strip()), " ", text, flags=re.IGNORECASE)
    return _PERSONAL.sub(" ", _ADDRESS.sub(" ", text))


def _python_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern in the syntax of Rust's regex, for Python."""
    for theirs, ours in ((r"(?-u:\b)", r"\b"), ("(?m:^)", r"(?:(?<=\n)|\A)"),
                         ("(?m:$)", r"(?=\n|\Z)")):
        pattern = pattern.replace(theirs, ours)
    return re.compile(re.sub(r"\\x\{([0-9a-f]{4})\}", r"\\u\1", pattern), re.ASCII)


_ADDRESS, _PERSONAL = _python_pattern(ADDRESS), _python_pattern(PERSONAL)


def main(data_dir: Path, result: Path, cvs: int) -> None:
    records = list(read(data_dir / "applicants.json", Candidate).values())
    began = time.perf_counter()
    for record in records[:cvs]:
        blanked(record.cv_pt or "", record.infos_basicas.nome if record.infos_basicas else None)
    seconds = (time.perf_counter() - began) * len(records) / min(cvs, len(records))
    result.write_text(json.dumps({"seconds_blanking": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
