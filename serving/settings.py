"""Settings of the served model, read once from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


class SettingsError(Exception):
    """A setting is not usable; the message names the variable and says what it must be."""


@dataclass(frozen=True)
class Settings:
    """Where to listen, how many workers, where to keep versions, how often to look."""

    host: str
    port: int
    workers: int
    state: Path
    """The directory for downloaded versions; one supervisor at a time."""
    poll_seconds: float
    swap_seconds: float
    """How long a version may take to load, and the workers to come up with it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises SettingsError where a variable is out of range."""
        return cls(
            host=environment.get("MODEL_HOST") or "127.0.0.1",
            port=int(_number(environment, "MODEL_PORT", 5002, 1, 65_535, whole=True)),
            workers=int(_number(environment, "MODEL_WORKERS", 2, 1, 64, whole=True)),
            state=Path(environment.get("MODEL_STATE") or PROJECT / "state" / "serving").absolute(),
            poll_seconds=_number(environment, "MODEL_POLL_SECONDS", 5, 0.1, 3_600),
            swap_seconds=_number(environment, "MODEL_SWAP_SECONDS", 120, 5, 3_600),
        )


def without_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """For processes that run a version's own code, which have no business in the registry."""
    uri = environment.get("MLFLOW_TRACKING_URI", "")
    return {name: value for name, value in environment.items()
            if not name.startswith("MLFLOW_TRACKING_") or (value == uri and "@" not in uri)}


def _number(
    environment: Mapping[str, str], name: str, default: float, least: float, most: float,
    *, whole: bool = False,
) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise SettingsError(f"{name} must be {kind} from {least:g} to {most:g}")
    return value
