"""The README's commands run, in a fresh clone with a fresh virtual environment."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps import generate

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PORTUGUESE = (PROJECT / "README.pt-BR.md").read_text(encoding="utf-8")
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = _FENCED.findall(README)
COMMANDS = [line for language, block in BLOCKS if language == "bash"
            for line in re.sub(r"\\\n\s*", " ", block).splitlines() if line.strip()]
CALLS = next(block for language, block in BLOCKS if language == "console" and "curl" in block)
"""What the README asks the running stack, each call followed by its answer."""
STARTS = {"mlflow server": 5001, "-e serve": 5002, "-e gateway": 5000, "-e up": 5000}
"""Commands that run until they are stopped, and the port each answers on."""


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (PROJECT / target).exists(), target


def test_the_portuguese_readme_has_the_same_commands_answers_and_figures() -> None:
    def blocks(text: str) -> list[tuple[str, str]]:
        # what stands behind a command is said in the language of the page
        return [(language, re.sub(r" +# .*", "", block)) for language, block in
                _FENCED.findall(text)]

    def figures(text: str) -> list[list[str]]:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        return [re.findall(r"\d+", row) for row in rows]

    def links(text: str) -> list[str]:
        ours = ("README.md", "README.pt-BR.md")
        return sorted(link for link in re.findall(r"\]\(([^)#]+)\)", text) if link not in ours)

    assert blocks(PORTUGUESE) == blocks(README)
    assert figures(PORTUGUESE) == figures(README)
    assert links(PORTUGUESE) == links(README)
    assert len(re.findall(r"^## ", PORTUGUESE, re.MULTILINE)) == len(
        re.findall(r"^## ", README, re.MULTILINE))
    assert len(PORTUGUESE.splitlines()) <= 150


def test_both_places_pin_the_same_mlflow() -> None:
    pinned = re.search(r"^mlflow==(\S+)$", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert set(re.findall(r"mlflow==([\d.]+)", README)) == {pinned.group(1)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone of what is checked out, committed or not, with a bare virtual environment."""
    from benchmarks.compare import write_pairs  # MLflow and matplotlib: for this test only

    folder = tmp_path_factory.mktemp("fresh") / "jobmatch"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    generate.generate(80, 100, 300, seed=3, out=folder / "theirs")
    write_pairs(folder / "data" / "sample", folder / "pairs.parquet", rows=500)
    yield folder


def environment(clone: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "GATEWAY_", "MODEL_"))}
    return kept | {"PATH": f"{clone / '.venv' / 'bin'}:{kept['PATH']}",
                   "VIRTUAL_ENV": str(clone / ".venv"), "MLFLOW_DISABLE_TELEMETRY": "true",
                   "MLFLOW_ENV_ROOT": str(clone / ".mlflow_envs")}


def runs_until_stopped(command: str) -> int | None:
    return next((port for start, port in STARTS.items() if start in command), None)


def started(clone: Path, command: str, port: int) -> subprocess.Popen[bytes]:
    with (clone / "started.log").open("wb") as log:
        process = subprocess.Popen(["bash", "-c", command], cwd=clone, env=environment(clone),
                                   start_new_session=True, stdout=log, stderr=log)
    for _ in range(240):
        time.sleep(0.5)
        path = "ready" if "-e up" in command else "health"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=2)
        except (OSError, urllib.error.HTTPError):
            continue
        return process
    raise AssertionError(f"nothing answers on port {port}: {command}")


def require_answers(clone: Path) -> None:
    """Make the README's calls with the password that the start showed: each answer has the fields
    that the README shows, whatever their values."""
    said = (clone / "started.log").read_text(encoding="utf-8")
    password = re.search(r"'admin' with the password (\S+)", said)
    assert password, said
    script, shown = [], []
    for line in CALLS.splitlines():
        if line.startswith("$ "):
            script += [line.removeprefix("$ "), "echo; echo ----"]
            shown.append("")
        else:
            shown[-1] += line
    done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=clone, capture_output=True,
                          text=True, check=True, timeout=120,
                          env=environment(clone) | {"PASSWORD": password.group(1)})
    answers = done.stdout.split("----")
    assert len(answers) == len(shown) + 1
    for answer, expected in zip(answers, shown, strict=False):
        if "failed its gate" in answer:  # a version that its gate refused is the user's to force
            continue
        fields = set(re.findall(r'"(\w+)":', expected))
        assert fields <= set(re.findall(r'"(\w+)":', answer)), (expected, answer)


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(30)
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.xdist_group("ports")
def test_every_command_of_the_readme_runs_in_a_fresh_clone(clone: Path) -> None:
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in COMMANDS:
            command = command.replace("/path/to/decision", "theirs")
            if "-e test" in command:  # .ci/run runs it
                continue
            port = runs_until_stopped(command)
            if port:
                running.append(started(clone, command, port))
                if "-e up" in command:
                    require_answers(clone)
                    stop(running.pop())
                continue
            done = subprocess.run(["bash", "-c", command], cwd=clone, env=environment(clone),
                                  capture_output=True, text=True, timeout=900, check=False)
            # a version that its gate refused is the user's to force: the README says so
            refused = ("failed its gate" in done.stderr
                       or "there is no promotion to undo" in done.stderr)
            assert done.returncode == 0 or refused, f"{command}\n{done.stdout}\n{done.stderr}"
        for language, block in BLOCKS:
            if language == "python":
                python = next((clone / ".mlflow_envs").glob("*/bin/python"))
                subprocess.run([python, "-c", block], cwd=clone, env=environment(clone),
                               check=True, timeout=300)
    finally:
        for process in running:
            stop(process)
