"""What is freed stays with the process, until it is much and is given back."""

import ctypes
import json
import subprocess
import sys

import pytest

from tests.conftest import PROJECT

RESIDENT = """
import json, resource, sys
from pathlib import Path
import numpy as np
from steps.memory import give_back, keep_freed
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
keep_freed()
before = resident()
array = np.ones(int(sys.argv[1]), np.uint8)
del array
kept = resident()
give_back()
print(json.dumps([before, kept, resident()]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize(("freed", "stays"), [(200_000_000, True), (700_000_000, False)])
def test_freed_memory_stays_until_much_of_it_is_given_back(freed: int, stays: bool) -> None:
    said = subprocess.run([sys.executable, "-c", RESIDENT, str(freed)], cwd=PROJECT, text=True,
                          check=True, stdout=subprocess.PIPE).stdout
    before, kept, after = json.loads(said)
    assert kept - before > 0.9 * freed
    assert after - before > 0.9 * freed if stays else after - before < 0.1 * freed
