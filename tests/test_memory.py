"""What is freed stays with the process, until it is given back."""

import json
import platform
import subprocess
import sys

import pytest

from tests.conftest import PROJECT

FREED = 200_000_000
RESIDENT = """
import json, resource
from pathlib import Path
import numpy as np
from steps.memory import give_back, keep_freed
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
keep_freed()
before = resident()
array = np.ones(200_000_000, np.uint8)
del array
kept = resident()
give_back()
print(json.dumps([before, kept, resident()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_stays_until_it_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", RESIDENT], cwd=PROJECT, text=True, check=True,
                          stdout=subprocess.PIPE).stdout
    before, kept, after = json.loads(said)
    assert kept - before > 0.9 * FREED
    assert after - before < 0.1 * FREED
