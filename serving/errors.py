"""What may be said of an exception whose message may hold somebody's CV or a password."""

import traceback
from pathlib import Path


def where(error: BaseException) -> str:
    """Kind and place of an exception, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
