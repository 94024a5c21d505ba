"""What runs: commands, addresses, and what each service has to know of the others."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gateway.listening import listen
from gateway.settings import PROJECT
from gateway.settings import Settings as GatewaySettings
from gateway.settings import load as gateway_settings
from serving.settings import Settings as ModelSettings

MLFLOW, MODEL, GATEWAY = "mlflow", "model", "gateway"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104  # nosec B104


class PortError(Exception):
    """A service cannot listen where it has to; says where, and which setting moves it."""


@dataclass(frozen=True)
class Service:
    """A command that listens on a port and answers at /health."""

    name: str
    command: Sequence[str]
    host: str
    port: int
    setting: str
    """The variable that moves its port."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = _ANYWHERE.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def services(environment: Mapping[str, str], folder: Path) -> list[Service]:
    """The services in the order in which they start.

    The registry is what `environment` names as MLFLOW_TRACKING_URI, by default mlflow.db in
    `folder`; where that is a server already, none is started. Raises SettingsError of the gateway
    or of the model server, PortError.
    """
    gateway, model = _gateway_settings(), ModelSettings.from_environment(environment)
    store = environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    found = []
    if not store.startswith(("http://", "https://")):
        found.append(_mlflow(store, _port(environment), folder))
        store = found[0].url
    served = Service(
        MODEL, [sys.executable, "-m", "serving"], model.host, model.port, "MODEL_PORT",
        {"MLFLOW_TRACKING_URI": store})
    host, _, port = gateway.bind.rpartition(":")
    door = Service(
        GATEWAY,
        [sys.executable, "-m", "gunicorn", "--config", str(PROJECT / "gateway/gunicorn.conf.py"),
         "gateway:create_app()"],
        host.strip("[]"), int(port), "GATEWAY_BIND",
        {"MLFLOW_TRACKING_URI": store, "GATEWAY_MODEL_URL": served.url,
         "MALLOC_MMAP_THRESHOLD_": "1048576"})
    return [*found, served, door]


def _gateway_settings() -> GatewaySettings:
    store = os.environ.pop("MLFLOW_TRACKING_URI", None)  # the gateway takes a server only
    try:
        return gateway_settings()
    finally:
        if store is not None:
            os.environ["MLFLOW_TRACKING_URI"] = store


def _mlflow(store: str, port: int, folder: Path) -> Service:
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--uvicorn-opts", "--log-level warning --no-access-log",
        # where `mlflow run . -e train` puts artifacts too, and finds them without this server
        "--default-artifact-root", str(folder / "mlruns"), "--no-serve-artifacts",
    ]  # fmt: skip
    # not on the command line, where other users of this machine could read a password in it
    return Service(MLFLOW, command, "127.0.0.1", port, "MLFLOW_PORT", {
        "MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_REGISTRY_STORE_URI": store,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"})


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get("MLFLOW_PORT") or "5001"
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise PortError("MLFLOW_PORT must be a whole number from 1 to 65535")
    return int(text)


def require_ports(wanted: Sequence[Service]) -> None:
    """See that every service can listen where it has to, before any is started.

    Raises PortError.
    """
    with ExitStack() as held:  # held together: two services on one port are found too
        for service in wanted:
            try:
                held.enter_context(listen(service.host, service.port))
            except OSError as error:
                raise PortError(
                    f"{service.name} cannot listen on {service.host}:{service.port} "
                    f"({error.strerror}): stop what uses port {service.port}, or set "
                    f"{service.setting} to another"
                ) from error


def environment_for(service: Service, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service: this process' own, and what it has to know."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONUNBUFFERED": "1"}
    path = os.pathsep.join(filter(None, [str(PROJECT), base.get("PYTHONPATH")]))
    return {**base, **quiet, "PYTHONPATH": path, **service.environment}
