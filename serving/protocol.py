"""uvicorn's HTTP protocol, patient when its worker is to end."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS_FOR_A_FIRST_REQUEST = 1.0


class PatientProtocol(HttpToolsProtocol):
    """uvicorn closes a connection that has not been asked anything yet as soon as its worker is to
    end. A client that has just made the connection, and whose request is on its way, would lose
    it: it gets a second."""

    _ending = False

    def shutdown(self) -> None:
        application: Any = self.config.loaded_app
        application.retire()
        if self.cycle is None and not self._ending:
            self._ending = True
            self.loop.call_later(SECONDS_FOR_A_FIRST_REQUEST, self.shutdown)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False
