"""Settings: one object, every variable documented."""

import re
from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, load, variables
from tests.gateway.servers import KEY, PROJECT


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in variables():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def documented() -> dict[str, str]:
    """Variables of `.env.example` with what it shows as their default."""
    text = (PROJECT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))


def test_every_variable_is_in_the_example_file_and_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for variable in variables():
        assert variable in documented(), f"{variable} is not in .env.example"
        assert variable in readme, f"{variable} is not in README.md"
    ours = {v for v in documented() if v.startswith("GATEWAY_")}
    assert ours <= set(variables()), "the example file has variables that do not exist"


def test_defaults_in_the_example_file_are_the_defaults() -> None:
    settings = Settings(_env_file=None)
    for variable, field in variables().items():
        shown = documented()[variable]
        actual = getattr(settings, field)
        if shown == "":
            assert not actual or field == "project_dir"
        elif field == "state_dir":
            assert actual == PROJECT / shown
        elif isinstance(actual, float):
            assert actual == float(shown)
        else:
            assert str(actual) == shown


def test_env_file_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"GATEWAY_JWT_KEYS={KEY}\nGATEWAY_WORKERS=3\nOTHER=1\n")
    monkeypatch.setenv("GATEWAY_WORKERS", "4")
    settings = load()
    assert settings.workers == 4
    assert list(settings.jwt_keys) == ["k1"]


def test_tracking_address_that_mlflow_run_has_set_is_told_from_a_wrong_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:5001\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/mlflow.db")
    with pytest.raises(SettingsError, match=r"MLFLOW_TRACKING_URI: .*`mlflow run`.*export") as said:
        load()
    assert ".env does not count" in str(said.value)
    assert "\n" not in str(said.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / ".env").write_text("MLFLOW_TRACKING_URI=sqlite:///mlflow.db\n")
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI: ") as said:
        load()
    assert "mlflow run" not in str(said.value)


def test_settings_cannot_be_changed_and_do_not_show_secrets() -> None:
    settings = Settings(
        _env_file=None, jwt_keys=KEY, admin_password="a long password", limits_url="redis://:pw@h"
    )
    with pytest.raises(ValueError, match="frozen"):
        settings.workers = 9  # type: ignore[misc]
    shown = repr(settings)
    for secret in (KEY.partition(":")[2], "a long password", ":pw@"):
        assert secret not in shown


def test_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_JWT_KEYS", "")
    monkeypatch.setenv("GATEWAY_DATABASE_URL", "")
    assert load().jwt_keys == {}


def test_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_LOGIN_LIMTI", "1/minute")
    with pytest.raises(SettingsError, match="GATEWAY_LOGIN_LIMTI"):
        load()


def test_what_kubernetes_tells_of_a_service_named_gateway_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in {
        "GATEWAY_SERVICE_HOST": "10.0.0.5", "GATEWAY_SERVICE_PORT": "5000",
        "GATEWAY_SERVICE_PORT_HTTP": "5000", "GATEWAY_PORT": "tcp://10.0.0.5:5000",
        "GATEWAY_PORT_5000_TCP": "tcp://10.0.0.5:5000", "GATEWAY_PORT_5000_TCP_PROTO": "tcp",
        "GATEWAY_PORT_5000_TCP_PORT": "5000", "GATEWAY_PORT_5000_TCP_ADDR": "10.0.0.5",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    assert load().bind == "127.0.0.1:5000"


@pytest.mark.parametrize("variable", ["GATEWAY_PORT", "GATEWAY_PORTS", "GATEWAY_SERVICE",
                                      "GATEWAY_PORT_5000_TCP_X"])
def test_variable_that_only_looks_like_kubernetes_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "5000")
    with pytest.raises(SettingsError, match=variable):
        load()


def test_key_that_is_named_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_JWT_KEYS", f"{KEY},k2:{'a' * 32},{KEY}")
    with pytest.raises(SettingsError, match="GATEWAY_JWT_KEYS: names a key twice"):
        load()
