"""Move the alias `production` to a version, as the registry's screen does, with a record.

Reads   the registry
Writes  the alias; tags on the version: promoted_by, promoted_at, replaced_version, forced, undo

`-P version=previous` undoes the last promotion; where `production` was moved on the screen since,
which leaves no record, it asks for a number. A version whose gate failed needs `-P force=true`,
but not once more to go back to it.
"""

import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import Field

from jobmatch_pyfunc.contract import CV, OPTIONAL_TEXTS, REQUIRED_TEXTS
from steps.failure import StepError
from steps.parameters import Parameters, command
from steps.registry import (
    MODEL,
    PRODUCTION,
    current_user,
    find_version,
    last_recorded,
    set_production,
    version_at,
)
from steps.session import past_stopping, run_step

ANSWER = """
import json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pandas.DataFrame(json.loads(sys.argv[2])))["probability"].iloc[0])
"""
PREVIOUS = "previous"


class PromoteParameters(Parameters):
    version: str = Field(pattern=rf"^([1-9]\d{{0,8}}|{PREVIOUS})$")
    force: bool


def chosen_version(client: MlflowClient, wanted: str, current: ModelVersion | None) -> ModelVersion:
    """The version asked for. Raises StepError when there is no such version."""
    if wanted == PREVIOUS:
        wanted = replaced_by(client, current)
    version = find_version(client, wanted)
    if version is None:
        known = [v.version for v in client.search_model_versions(f"name='{MODEL}'")]
        listed = ", ".join(sorted(map(str, known), key=int)) or "none: train one first"
        raise StepError(f"promote: {MODEL} has no version {wanted} (versions: {listed})")
    return version


def replaced_by(client: MlflowClient, current: ModelVersion | None) -> str:
    """The number of the version that the current production replaced.

    Raises StepError where it replaced none, or where the records do not tell.
    """
    recorded = [str(version.version) for version in last_recorded(client)]
    if current and str(current.version) not in recorded:
        last = (f"the last promotion on record was to version {recorded[0]}" if recorded
                else "no promotion is on record")
        raise StepError(
            f"promote: {PRODUCTION} was moved to version {current.version} on the registry's "
            f"screen, so it is not known what it replaced ({last}); name a version, for instance "
            f"-P version={recorded[0] if recorded else 1}")
    replaced = current.tags.get("replaced_version", "none") if current else "none"
    if replaced == "none":
        raise StepError("promote: there is no promotion to undo; name a version, "
                        "for instance -P version=1")
    return replaced


def require_passed(version: ModelVersion, parameters: PromoteParameters) -> None:
    """Raises StepError where the version failed its gate and nobody said `force`.

    Who goes back to a version that was forced before need not say it again: undoing is quick.
    """
    forced_before = parameters.version == PREVIOUS and version.tags.get("forced") == "true"
    if gate_failed(version) and not parameters.force and not forced_before:
        raise StepError(
            f"promote: version {version.version} failed its gate "
            f"({version.tags.get('gate_reason', 'no reason recorded')}); "
            "to promote it all the same, say -P force=true"
        )


def gate_failed(version: ModelVersion) -> bool:
    return version.tags.get("gate") == "failed"


def require_loads(version: str) -> None:
    """Raises StepError unless the version loads and answers a row.

    In a process of its own, as a server would load it, and without this folder on its path: the
    project's own jobmatch_pyfunc would stand in for the code that the version ships. In this folder
    all the same, since the store may be given relative to it.
    """
    row = dict.fromkeys((*OPTIONAL_TEXTS, *REQUIRED_TEXTS, CV), "java")
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-P", "-c", ANSWER, f"models:/{MODEL}/{version}", json.dumps([row])],
            # what it downloads goes with the folder
            env=os.environ | {"TMPDIR": folder}, capture_output=True, text=True, check=False)
    try:
        sound = not done.returncode and 0 <= float(done.stdout.splitlines()[-1]) <= 1
    except (ValueError, IndexError):
        sound = False
    if not sound:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StepError(f"promote: version {version} does not load or answer ({said[:200]}); "
                        f"{PRODUCTION} stays where it is")


def promote(parameters: PromoteParameters) -> None:
    """Check the version, then move the alias."""
    client = MlflowClient()
    current = version_at(client, PRODUCTION)
    version = chosen_version(client, parameters.version, current)
    number = str(version.version)
    if _already_at(number, current):
        return
    require_passed(version, parameters)
    require_loads(number)
    current = version_at(client, PRODUCTION)  # others may have moved it meanwhile
    if _already_at(number, current):
        return
    replaced = str(current.version) if current else None
    past_stopping()
    set_production(client, number, replaced, by=current_user(), forced=gate_failed(version),
                   undo=parameters.version == PREVIOUS)
    mlflow.set_tags({"jobmatch.version": number, "jobmatch.replaced": replaced or "none"})
    print(f"{PRODUCTION}: version {replaced or 'none'} -> {number}; "
          f"undo with `{command('promote', version=PREVIOUS)}`")


def _already_at(number: str, current: ModelVersion | None) -> bool:
    there = current is not None and str(current.version) == number
    if there:
        print(f"{PRODUCTION} is already at version {number}: nothing to do")
    return there


if __name__ == "__main__":
    run_step("promote", PromoteParameters, promote)
