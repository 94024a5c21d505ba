"""Move the alias `production` to a version, as the registry's screen does, with a record.

Reads   the registry
Writes  the alias; tags on the version: promoted_by, promoted_at, replaced_version, forced

`-P version=previous` undoes the last promotion. A version whose gate failed needs `-P force=true`.
"""

import json
import subprocess
import sys
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import Field

from jobmatch_pyfunc.contract import CV, OPTIONAL_TEXTS, REQUIRED_TEXTS
from steps.failure import StepError
from steps.parameters import Parameters
from steps.registry import (
    MODEL,
    PRODUCTION,
    current_user,
    find_version,
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


class PromoteParameters(Parameters):
    version: str = Field(pattern=r"^([1-9]\d{0,8}|previous)$")
    force: bool


def chosen_version(client: MlflowClient, wanted: str, current: ModelVersion | None) -> ModelVersion:
    """The version asked for; `previous` is the one that the current production replaced.

    Raises StepError when there is no such version.
    """
    if wanted == "previous":
        wanted = current.tags.get("replaced_version", "none") if current else "none"
        if wanted == "none":
            raise StepError("promote: there is no promotion to undo; name a version, "
                            "for instance -P version=1")
    version = find_version(client, wanted)
    if version is None:
        known = [v.version for v in client.search_model_versions(f"name='{MODEL}'")]
        listed = ", ".join(sorted(map(str, known), key=int)) or "none: train one first"
        raise StepError(f"promote: {MODEL} has no version {wanted} (versions: {listed})")
    return version


def require_loads(version: str) -> None:
    """Raises StepError unless the version loads and answers a row.

    In a process and folder of its own, as a server would load it: here the project's own
    jobmatch_pyfunc is imported already and would stand in for the code that the version ships.
    """
    row = dict.fromkeys((*OPTIONAL_TEXTS, *REQUIRED_TEXTS, CV), "java")
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", ANSWER, f"models:/{MODEL}/{version}", json.dumps([row])],
            cwd=folder, capture_output=True, text=True, check=False)
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
    if current and str(current.version) == number:
        print(f"{PRODUCTION} is already at version {number}: nothing to do")
        return
    failed = version.tags.get("gate") == "failed"
    if failed and not parameters.force:
        raise StepError(
            f"promote: version {number} failed its gate "
            f"({version.tags.get('gate_reason', 'no reason recorded')}); "
            "to promote it all the same, say -P force=true"
        )
    require_loads(number)
    replaced = str(current.version) if current else None
    past_stopping()
    set_production(client, number, replaced, by=current_user(), forced=failed)
    mlflow.set_tags({"jobmatch.version": number, "jobmatch.replaced": replaced or "none"})
    print(f"{PRODUCTION}: version {replaced or 'none'} -> {number}; "
          "undo with `mlflow run . -e promote -P version=previous`")


if __name__ == "__main__":
    run_step("promote", PromoteParameters, promote)
