"""Rate limits, per user and per address."""

import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from gateway import create_app
from gateway.settings import Settings
from tests.gateway import servers
from tests.gateway.conftest import bearer, problem, with_users
from tests.gateway.servers import KEY, PASSWORD


def login(client, username: str, address: str = "10.0.0.1", password: str = "wrong"):  # noqa: S107
    return client.post(
        "/login", json={"username": username, "password": password},
        environ_base={"REMOTE_ADDR": address},
    )  # fmt: skip


@pytest.fixture
def client(settle: Callable[..., Settings]):
    return with_users(create_app(settle(login_limit="5/minute"))).test_client()


def test_sixth_login_from_an_address_is_429_with_when_to_try_again(client) -> None:
    for n in range(5):
        assert login(client, f"user{n}").status_code == 401
    answer = login(client, "recruiter", password=PASSWORD)
    problem(answer, 429, "too-many-requests")
    assert 0 < int(answer.headers["Retry-After"]) <= 61
    assert login(client, "recruiter", "10.0.0.2", PASSWORD).status_code == 200


def test_sixth_login_for_a_name_is_429_from_anywhere(client) -> None:
    for n in range(5):
        assert login(client, "recruiter", f"10.0.1.{n}").status_code == 401
    problem(login(client, "RECRUITER", "10.0.1.9", PASSWORD), 429, "too-many-requests")


def test_addresses_of_one_ipv6_network_count_as_one(client) -> None:
    for n in range(5):
        assert login(client, f"user{n}", f"2001:db8::{n}").status_code == 401
    problem(login(client, "other", "2001:db8::ffff"), 429, "too-many-requests")
    assert login(client, "other2", "2001:db8:0:1::1").status_code == 401


def test_address_that_a_client_makes_up_is_not_believed(client) -> None:
    for n in range(6):
        answer = client.post(
            "/login", json={"username": f"user{n}", "password": "x"},
            headers={"X-Forwarded-For": f"10.9.9.{n}"},
        )  # fmt: skip
    problem(answer, 429, "too-many-requests")


def test_address_that_a_trusted_proxy_tells_is_believed(settle: Callable[..., Settings]) -> None:
    app = with_users(create_app(settle(login_limit="5/minute", trusted_proxies=1)))
    for n in range(6):
        answer = app.test_client().post(
            "/login", json={"username": f"user{n}", "password": "x"},
            headers={"X-Forwarded-For": f"6.6.6.6, 10.9.9.{n}"},
        )  # fmt: skip
        assert answer.status_code == 401


@pytest.mark.parametrize("told", ["10.9.9.{}:4444", "[2001:db8:{}::1]:443", "[2001:db8:{}::1]"])
def test_address_that_a_proxy_tells_with_its_port_is_that_address(
    settle: Callable[..., Settings], told: str
) -> None:
    app = with_users(create_app(settle(login_limit="2/minute", trusted_proxies=1)))
    statuses = [
        app.test_client().post(
            "/login", json={"username": f"user{n}", "password": "x"},
            headers={"X-Forwarded-For": told.format(n % 2)},
        ).status_code for n in range(5)
    ]  # fmt: skip
    assert statuses == [401] * 4 + [429]


def test_requests_of_a_user_are_limited_and_those_of_another_are_not(
    settle: Callable[..., Settings],
) -> None:
    app = with_users(create_app(settle(request_limit="10/minute")))
    client = app.test_client()
    for _ in range(10):
        assert client.post("/rank", json={}, headers=bearer(app, "recruiter")).status_code == 422
    problem(client.post("/rank", json={}, headers=bearer(app, "recruiter")), 429,
            "too-many-requests")
    assert client.post("/rank", json={}, headers=bearer(app, "trainer")).status_code == 422
    assert client.get("/health").status_code == 200


def test_refused_requests_are_limited_too(settle: Callable[..., Settings]) -> None:
    client = create_app(settle(request_limit="10/minute")).test_client()
    bad = {"Authorization": "Bearer x"}
    for _ in range(10):
        assert client.post("/rank", json={}, headers=bad).status_code == 401
    problem(client.post("/rank", json={}, headers=bad), 429, "too-many-requests")


def test_logins_that_cannot_be_read_are_limited_like_every_request(
    settle: Callable[..., Settings],
) -> None:
    client = with_users(create_app(settle(request_limit="10/minute"))).test_client()
    assert login(client, "recruiter", password=PASSWORD).status_code == 200
    unreadable = [client.post("/login", data="{", content_type="application/json",
                              environ_base={"REMOTE_ADDR": "10.0.0.1"}) for _ in range(10)]
    assert [answer.status_code for answer in unreadable] == [400] * 9 + [429]


def _hundred_logins(urls: list[str]) -> list[int]:
    def attempt(n: int) -> int:
        body = {"username": f"user{n}", "password": "wrong"}
        return requests.post(urls[n % len(urls)] + "/login", json=body, timeout=30).status_code

    with ThreadPoolExecutor(100) as pool:
        return list(pool.map(attempt, range(100)))


def test_hundred_parallel_logins_get_five_tries_over_all_workers(tmp_path: Path) -> None:
    with servers.gateway(tmp_path, GATEWAY_WORKERS="3", GATEWAY_JWT_KEYS=KEY,
                         GATEWAY_ADMIN_PASSWORD=PASSWORD) as url:  # fmt: skip
        statuses = Counter(_hundred_logins([url]))
        assert statuses == {401: 5, 429: 95}
        assert requests.get(url + "/health", timeout=5).status_code == 200


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on this machine")
    port = servers.free_port()
    process = subprocess.Popen(
        [server, "--port", str(port), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    try:
        time.sleep(0.5)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def test_limits_are_shared_by_machines_through_redis(tmp_path: Path, redis_url: str) -> None:
    usual = {"GATEWAY_JWT_KEYS": KEY, "GATEWAY_ADMIN_PASSWORD": PASSWORD,
             "GATEWAY_LIMITS_URL": redis_url, "GATEWAY_WORKERS": "1"}  # fmt: skip
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        servers.gateway(tmp_path / "a", **usual) as one,
        servers.gateway(tmp_path / "b", **usual) as two,
    ):
        assert _hundred_logins([one, two]).count(401) == 5


def test_logins_are_limited_when_redis_is_away(settle: Callable[..., Settings]) -> None:
    app = with_users(create_app(settle(login_limit="5/minute", limits_url="redis://127.0.0.1:9")))
    statuses = [login(app.test_client(), f"user{n}").status_code for n in range(8)]
    assert statuses.count(401) == 5
    assert statuses.count(429) == 3


def test_redis_that_does_not_answer_keeps_nobody_waiting(settle: Callable[..., Settings]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        client = create_app(settle(limits_url=url)).test_client()
        began = time.monotonic()
        problem(client.get("/ready"), 502, "upstream-failed")
        took = time.monotonic() - began
    assert took < 4, took


def test_time_does_not_tell_whether_a_name_exists(settle: Callable[..., Settings]) -> None:
    client = with_users(create_app(settle())).test_client()
    names = ("recruiter", "no-such-user")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(20):  # in turn, and the shortest of each: other work on the machine only adds
        for name in names:
            began = time.perf_counter()
            assert login(client, name).status_code == 401
            times[name].append(time.perf_counter() - began)
    known, unknown = (min(times[name]) for name in names)
    assert abs(known - unknown) < 0.35 * max(known, unknown), (known, unknown)
