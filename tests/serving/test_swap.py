"""The alias moves; the service follows it, or says why not. One supervisor for all, in order."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.serving.conftest import (
    ROW,
    Registry,
    Served,
    answers_nan,
    cannot_load,
    fails_in_workers,
    has_another_signature,
    load,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_promotion_takes_effect_within_a_minute_without_a_failed_request(
    registry: Registry, served: Served
) -> None:
    version = registry.add()
    with load(served.url, clients=4) as clients:
        registry.promote(version)
        served.answers_with(version, seconds=60)
        after = clients.answered
        wait_for(lambda: clients.answered > after + 20)
    assert clients.failed == []
    assert clients.versions == {1, version}
    assert "serving_since" in registry.tags(version)
    assert "serving_since" not in registry.tags(1)
    assert f"version {version} serves, replacing 1" in served.log.read_text()


@pytest.mark.slow
def test_swapping_is_told_and_the_old_version_answers_meanwhile(
    registry: Registry, served: Served
) -> None:
    old, version = served.version(), registry.add()
    registry.promote(version)
    told = wait_for(lambda: (s := served.status()).get("state") == "swapping" and s)
    assert told == {"state": "swapping", "model_version": old, "next_version": version}
    assert requests.get(f"{served.url}/ready", timeout=5).status_code == 200
    served.answers_with(version)


@pytest.mark.slow
def test_a_rollback_needs_no_download(registry: Registry, served: Served) -> None:
    new = served.version()
    registry.promote(new - 1)
    began = time.monotonic()
    served.answers_with(new - 1)
    assert time.monotonic() - began < 60
    registry.promote(new)
    served.answers_with(new)


@pytest.mark.parametrize(("change", "reason"), [
    (cannot_load, "it does not load"),
    (answers_nan, "it answers with a number that is not finite"),
    (has_another_signature, "its input columns are not those of the service"),
    pytest.param(fails_in_workers, "the workers cannot load it", marks=pytest.mark.slow),
])
def test_a_broken_version_never_takes_over(
    registry: Registry, served: Served, change, reason: str
) -> None:
    old, version = served.version(), registry.add(change)
    with load(served.url) as clients:
        registry.promote(version)
        assert registry.tag_arrives(version, "refused_because").startswith(reason)
        served.answers_with(old)
    assert clients.failed == []
    assert clients.versions == {old}
    assert "serving_since" not in registry.tags(version)
    log = served.log.read_text()
    assert log.count(f"version {version} must not serve: {reason}") == 1
    assert "Traceback" not in log
    assert "secret" not in log


@pytest.mark.slow
def test_a_refused_version_is_tried_again_when_the_alias_comes_back_to_it(
    registry: Registry, served: Served
) -> None:
    good, bad = served.version(), registry.add(cannot_load)
    registry.promote(bad)
    registry.tag_arrives(bad, "refused_because")
    registry.promote(good)
    wait_for(lambda: f"version {good} serves" in served.log.read_text().splitlines()[-1])
    registry.promote(bad)
    wait_for(lambda: served.log.read_text().count(f"version {bad} must not serve") == 2)
    registry.promote(good)
    served.answers_with(good)


@pytest.mark.slow
def test_an_alias_moved_five_times_in_ten_seconds_ends_at_the_last(
    registry: Registry, served: Served
) -> None:
    first, second = served.version(), registry.add()
    with load(served.url) as clients:
        for version in (second, first, second, first, second):
            registry.promote(version)
            time.sleep(2)
        served.answers_with(second)
    assert clients.failed == []
    assert clients.versions <= {first, second}


@pytest.mark.slow
def test_a_long_request_is_answered_across_a_swap(registry: Registry, served: Served) -> None:
    old, version = served.version(), registry.add()
    rows = [ROW | {"cv_pt": f"java spring {i} " * 30} for i in range(6000)]
    body = {"dataframe_records": rows, "params": {"reasons": 20}}
    with ThreadPoolExecutor(2) as clients:
        asked = [clients.submit(served.post, body) for _ in range(2)]
        time.sleep(1)
        registry.promote(version)
        served.answers_with(version)
        answers = [answer.result() for answer in asked]
    assert [answer.status_code for answer in answers] == [200, 200]
    # the old version's worker finished what it had begun
    assert {a.json()["predictions"][0]["model_version"] for a in answers} <= {old, version}


@pytest.mark.slow
def test_a_version_deleted_while_it_comes_up_does_not_stop_what_follows(
    registry: Registry, served: Served
) -> None:
    old, version = served.version(), registry.add()
    registry.promote(version)
    wait_for(lambda: served.status().get("next_version") == version)
    registry.client.delete_registered_model_alias("jobmatch", "production")
    registry.client.delete_model_version("jobmatch", str(version))
    wait_for(lambda: served.status().get("state") == "ready")
    registry.promote(old)
    served.answers_with(old)


@pytest.mark.slow
def test_a_deleted_alias_changes_nothing(registry: Registry, served: Served) -> None:
    version = served.version()
    registry.forget_alias()
    wait_for(lambda: "no version of jobmatch has the alias production; "
             f"version {version} goes on serving" in served.log.read_text())
    assert served.version() == version
    assert requests.get(f"{served.url}/ready", timeout=5).status_code == 200
    registry.promote(version)


@pytest.mark.slow
def test_old_downloads_are_deleted_and_the_previous_one_is_kept(
    registry: Registry, served: Served
) -> None:
    previous, version = served.version(), registry.add()
    registry.promote(version)
    served.answers_with(version)
    versions = served.log.parent / "state" / "versions"
    kept = wait_for(lambda: len(found := list(versions.iterdir())) == 2 and found)
    assert {int(folder.name.split("-")[0]) for folder in kept} == {previous, version}
