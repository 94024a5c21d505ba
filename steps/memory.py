"""What malloc does with memory that has been freed.

By default glibc asks the system for every large array and gives it back at once, so that each new
one is handed out page by page again: a third of the system's time in a training
(docs/performance.md). See mallopt(3) and malloc_trim(3).
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1
WORTH_GIVING_BACK = 2**29
"""Bytes: less than that is soon needed again, and each page is handed out anew then."""


class _Mallinfo2(ctypes.Structure):
    """glibc's, see mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]


def keep_freed() -> None:
    """From here on, what this process frees stays with it for what it needs next. Nothing changes
    where the C library is not glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_MMAP_MAX, 0)


def give_back() -> None:
    """Give back to the system what has been freed up to here, where that is much, given back before
    or not."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = _Mallinfo2
        if libc.mallinfo2().fordblks < WORTH_GIVING_BACK:
            return
    libc.malloc_trim(0)
