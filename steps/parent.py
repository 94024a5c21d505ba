"""Worker processes end with the process that started them, also where that was killed."""

import os
import threading
import time


def end_with(parent: int) -> None:
    """End this process within a second of its parent, which has the given number.

    Asked for again and again: the kernel's own signal (`serving.lifeline`) follows the thread that
    started a process, which for these is gone at once.
    """
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
