"""Moving `production`: by a person, to a version that works, on record, and back again."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest

from steps import promote
from steps.parameters import command
from steps.promote import require_loads
from steps.registry import set_production
from tests.conftest import PROJECT, Ended, Store, Trained, use

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("trained")]

Step = Callable[..., Ended]


@pytest.fixture(scope="module")
def model_folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a version that works."""
    patch = pytest.MonkeyPatch()
    with patch.context() as here:
        use(trained.store, here)
        folder = mlflow.artifacts.download_artifacts("models:/jobmatch/1")
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("version") / "model"))


@pytest.fixture
def registry(store: Store, model_folder: Path, tmp_path: Path) -> Store:
    """Versions 1 to 3 work, but the third failed its gate; 4 lost its files, 5 ships code that
    does not run, 6 has no weights. None is in production."""
    client = store.client
    client.create_registered_model("jobmatch")
    for number in range(1, 7):
        folder = Path(shutil.copytree(model_folder, tmp_path / f"version-{number}"))
        verdict = {"gate": "failed" if number == 3 else "passed", "gate_reason": "recall fell"}
        client.create_model_version("jobmatch", folder.as_uri(), tags=verdict)
    shutil.rmtree(tmp_path / "version-4" / "artifacts")
    code = tmp_path / "version-5" / "code" / "jobmatch_pyfunc" / "model.py"
    code.write_text("import no_such_module\n" + code.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "version-6" / "artifacts" / "fitted" / "final" / "weights.json").write_text("{}")
    return store


def put_live(store: Store, version: int) -> None:
    set_production(store.client, str(version), None, by="someone")


def refused(ended: Ended) -> str:
    assert ended.code == 1
    assert ended.error.startswith("error: promote: ")
    assert "\n" not in ended.error
    return ended.error


def tags(store: Store, version: int) -> dict[str, str]:
    return dict(store.client.get_model_version("jobmatch", str(version)).tags)


def test_promotion_moves_the_alias_and_records_who_when_and_what(
    registry: Store, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    put_live(registry, 1)
    ended = step("promote", version=2)
    assert ended.code == 0, ended.error
    assert (f"version 1 -> 2; undo with `{command('promote', version='previous')}`"
            in ended.output)
    assert registry.aliases() == {"production": 2}
    record = tags(registry, 2)
    assert record["promoted_by"] == "ana"
    age = datetime.now(UTC) - datetime.fromisoformat(record["promoted_at"])
    assert timedelta(0) <= age < timedelta(minutes=2)
    assert record["replaced_version"] == "1"
    assert record["forced"] == "false"
    assert tags(registry, 1)["replaced_version"] == "none"
    run = registry.runs("promote")[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["jobmatch.version"] == "2"


def test_what_is_replaced_is_what_served_last(
    registry: Store, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may promote while a version is tried, which takes seconds."""
    put_live(registry, 1)

    def tried_while_another_is_promoted(number: str) -> None:
        require_loads(number)
        put_live(registry, 3)

    monkeypatch.setattr(promote, "require_loads", tried_while_another_is_promoted)
    assert "version 3 -> 2" in step("promote", version=2).output
    assert tags(registry, 2)["replaced_version"] == "3"
    assert "already at version 3" in step("promote", version=3, force="true").output
    assert registry.aliases() == {"production": 3}


def test_previous_undoes_the_last_promotion(registry: Store, step: Step) -> None:
    put_live(registry, 1)
    set_production(registry.client, "2", "1", by="someone")
    assert step("promote", version="previous").code == 0
    assert registry.aliases() == {"production": 1}
    assert tags(registry, 1)["replaced_version"] == "2"
    assert tags(registry, 1)["undo"] == "true"
    assert tags(registry, 2)["undo"] == "false"


@pytest.fixture
def three_live(registry: Store) -> Store:
    """Promoted one after the other: 1, 2 and, by force, 3."""
    put_live(registry, 1)
    set_production(registry.client, "2", "1", by="someone")
    set_production(registry.client, "3", "2", by="someone", forced=True)
    return registry


def move_on_the_screen(store: Store, version: int) -> None:
    store.client.set_registered_model_alias("jobmatch", "production", str(version))


@pytest.mark.parametrize("moved", [1, 2])
def test_previous_after_a_move_on_the_screen_asks_for_a_number(
    three_live: Store, step: Step, moved: int
) -> None:
    move_on_the_screen(three_live, moved)
    line = refused(step("promote", version="previous"))
    assert f"production was moved to version {moved} on the registry's screen" in line
    assert "the last promotion on record was to version 3" in line
    assert "name a version, for instance -P version=3" in line
    assert three_live.aliases() == {"production": moved}


def test_previous_where_nothing_was_ever_recorded_asks_for_a_number(
    registry: Store, step: Step
) -> None:
    move_on_the_screen(registry, 2)
    line = refused(step("promote", version="previous"))
    assert "no promotion is on record" in line
    assert registry.aliases() == {"production": 2}


def test_promotion_after_a_move_on_the_screen_can_be_undone(three_live: Store, step: Step) -> None:
    move_on_the_screen(three_live, 2)
    assert step("promote", version=1).code == 0
    assert step("promote", version="previous").code == 0
    assert three_live.aliases() == {"production": 2}


def test_previous_follows_the_gateways_records(three_live: Store, step: Step) -> None:
    """The gateway writes whole seconds."""
    at = (datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=0).isoformat()
    for key, value in {"promoted_at": at, "replaced_version": "3"}.items():
        three_live.client.set_model_version_tag("jobmatch", "1", key, value)
    move_on_the_screen(three_live, 1)
    assert step("promote", version="previous").code == 0
    assert three_live.aliases() == {"production": 3}


@pytest.mark.parametrize("at", ["yesterday", "", "2020-01-01T00:00:00"])
def test_record_that_somebody_edited_is_no_crash(
    three_live: Store, step: Step, at: str
) -> None:
    three_live.client.set_model_version_tag("jobmatch", "3", "promoted_at", at)
    line = refused(step("promote", version="previous"))
    assert "the last promotion on record was to version 2" in line


def test_undoing_goes_back_to_a_forced_version_without_force(
    three_live: Store, step: Step
) -> None:
    set_production(three_live.client, "2", "3", by="someone")
    ended = step("promote", version="previous", force="false")
    assert ended.code == 0, ended.error
    assert three_live.aliases() == {"production": 3}
    record = tags(three_live, 3)
    assert (record["forced"], record["undo"], record["replaced_version"]) == ("true", "true", "2")


def test_undoing_to_a_failed_version_that_nobody_forced_needs_force(
    registry: Store, step: Step
) -> None:
    move_on_the_screen(registry, 3)
    set_production(registry.client, "2", "3", by="someone")
    assert "-P force=true" in refused(step("promote", version="previous", force="false"))
    assert registry.aliases() == {"production": 2}


@pytest.mark.parametrize("before", [[], [1]])
def test_previous_without_a_promotion_is_refused(
    registry: Store, step: Step, before: list[int]
) -> None:
    for version in before:
        put_live(registry, version)
    assert "no promotion to undo" in refused(step("promote", version="previous"))


def test_version_that_does_not_exist_is_refused_with_those_that_do(
    registry: Store, step: Step
) -> None:
    line = refused(step("promote", version=17))
    assert "jobmatch has no version 17 (versions: 1, 2, 3, 4, 5, 6)" in line
    assert registry.aliases() == {}
    assert registry.runs("promote")[0].info.status == "FAILED"


def test_nothing_trained_yet_is_told(store: Store, step: Step) -> None:
    assert "none: train one first" in refused(step("promote", version=1))


@pytest.mark.parametrize("broken", [4, 5, 6])
def test_version_that_does_not_load_is_refused(registry: Store, step: Step, broken: int) -> None:
    put_live(registry, 1)
    line = refused(step("promote", version=broken))
    assert f"version {broken} does not load" in line
    assert registry.aliases() == {"production": 1}
    assert "promoted_by" not in tags(registry, broken)


def test_version_that_failed_its_gate_is_refused_with_the_reason(
    registry: Store, step: Step
) -> None:
    line = refused(step("promote", version=3))
    assert "failed its gate (recall fell)" in line
    assert "-P force=true" in line
    assert registry.aliases() == {}


def test_force_promotes_a_version_that_failed_its_gate_and_is_recorded(
    registry: Store, step: Step
) -> None:
    assert step("promote", version=3, force="true").code == 0
    assert registry.aliases() == {"production": 3}
    assert tags(registry, 3)["forced"] == "true"


def test_promoting_what_is_live_changes_nothing(registry: Store, step: Step) -> None:
    put_live(registry, 1)
    before = tags(registry, 1)
    ended = step("promote", version=1)
    assert ended.code == 0
    assert "already at version 1" in ended.output
    assert tags(registry, 1) == before


def test_a_store_that_is_named_relative_to_the_folder_is_the_one_that_is_asked(
    registry: Store,
) -> None:
    done = registry.run("-m", "steps.promote", "--version", "2", cwd=registry.folder,
                        PYTHONPATH=str(PROJECT), MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    assert done.returncode == 0, done.stdout
    assert registry.aliases() == {"production": 2}


def test_mlflow_run_promotes(registry: Store) -> None:
    done = registry.mlflow_run("promote", version="2")
    assert done.returncode == 0, done.stdout
    assert registry.aliases() == {"production": 2}
