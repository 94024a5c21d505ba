"""Whether an address can be had, told before the server that would take it."""

import errno
import socket


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, as that of a server would. Raises OSError with the reason."""
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen()
    except OverflowError:
        probe.close()
        raise OSError(errno.EINVAL, "no such port") from None
    except BaseException:
        probe.close()
        raise
    return probe
