"""A worker of uvicorn's whose end is noticed at once."""

from uvicorn.supervisors import multiprocess


class Worker(multiprocess.Process):
    """uvicorn asks each worker whether it is well and waits for the answer, up to the seconds that
    loading a model may take. One that is killed in between never answers; only where nobody else
    holds its end of the pipe does that read as an end of file."""

    def start(self) -> None:
        super().start()
        self.child_conn.close()


def install() -> None:
    """Have uvicorn start these."""
    multiprocess.Process = Worker  # type: ignore[misc]
