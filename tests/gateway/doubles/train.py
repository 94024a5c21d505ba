"""What the entry point `train` does in these tests: reports as the real one, without learning.

`random_state` chooses the course: 1 goes on for minutes, 2 fails with a clear line, 3 dies without
a word, 4 registers for some seconds and cannot be stopped then, 5 takes some seconds to stop,
anything else succeeds.
"""

import os
import signal
import sys
import time

import requests

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
course = arguments["--random_state"]
run_id = os.environ["MLFLOW_RUN_ID"]
api = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/"
leaked = [name for name in os.environ if name.startswith("GATEWAY_")]


def report(path: str, **body: object) -> None:
    requests.post(api + path, json={"run_id": run_id, **body}, timeout=10).raise_for_status()


def tag(key: str, value: str) -> None:
    report("set-tag", key=key, value=value)


def stop_slowly() -> None:
    time.sleep(3)
    report("update", status="KILLED", end_time=int(time.time() * 1000))
    sys.exit(143)


tag("test.arguments", " ".join(f"{k}={v}" for k, v in arguments.items()))
tag("test.leaked", ",".join(leaked) or "nothing")
tag("jobmatch.stage", "featurize")
tag("jobmatch.percent", "40")
if course == "1":
    time.sleep(300)
if course == "4":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tag("jobmatch.stage", "logging and registering")
    time.sleep(12)
if course == "5":
    signal.signal(signal.SIGTERM, lambda *_: stop_slowly())
    tag("jobmatch.stage", "fitting")
    time.sleep(300)
if course == "2":
    tag("jobmatch.error", "/srv/records/vagas.json, line 3: not JSON; check the file")
    sys.exit("error: vagas.json, line 3: not JSON; check the file")
if course == "3":
    os._exit(7)
report("log-metric", key="hire_auc", value=0.81, timestamp=int(time.time() * 1000))
tag("jobmatch.stage", "done")
tag("jobmatch.percent", "100")
tag("jobmatch.version", "1")
tag("jobmatch.gate", "passed")
