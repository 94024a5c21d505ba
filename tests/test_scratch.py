"""Temporary files of a step, which may hold texts of CVs, outlive neither it nor its death."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest

from steps.scratch import NEW, PREFIX, own_folder, remove_abandoned, write_table
from tests.conftest import PROJECT

LIVING = """
import sys, tempfile, time
from pathlib import Path
from steps.scratch import own_folder
with own_folder():
    Path(tempfile.mkdtemp(), "cv").write_text("text")
    print(tempfile.gettempdir(), flush=True)
    time.sleep(600)
"""


def age(folder: Path) -> None:
    old = time.time() - NEW - 1
    os.utime(folder, (old, old))


def test_what_a_step_leaves_goes_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_folder():
        assert Path(tempfile.mkdtemp()).parent.parent == tmp_path
    assert tempfile.gettempdir() == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_step_that_was_killed_goes_with_the_next_step_and_no_earlier(
    tmp_path: Path
) -> None:
    process = subprocess.Popen([sys.executable, "-c", LIVING], cwd=PROJECT, text=True,
                               stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        age(folder)
        remove_abandoned(tmp_path)
        assert list(folder.rglob("cv")), "it took the folder of a living step"
    finally:
        process.kill()
        process.communicate()
    assert list(folder.rglob("cv"))
    remove_abandoned(tmp_path)
    assert not folder.exists()


def test_what_is_new_or_no_folder_of_a_step_is_left_alone(tmp_path: Path) -> None:
    new, other, linked = (tmp_path / f"{name}" for name in (
        f"{PREFIX}new", "jobmatch-other", "elsewhere"))
    for folder in (new, other, linked):
        folder.mkdir()
    age(other)
    age(linked)
    (tmp_path / f"{PREFIX}link").symlink_to(linked)
    remove_abandoned(tmp_path)
    assert new.exists()
    assert other.exists()
    assert linked.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_table_that_finds_no_room_says_so() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_table(pl.DataFrame({"cv": ["java"] * 1000}), Path("/dev/full"))
