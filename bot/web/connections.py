"""Connections that are given only so much time and room: uvicorn's HTTP protocol with two bounds that it lacks.

In: connections. Out: those whose first or next request does not arrive in time are closed, and so are new ones while
there are too many. uvicorn itself waits for ever for the headers of a connection's first request
(uvicorn/protocols/http/h11_impl.py, 0.54: only ``timeout_keep_alive``, which begins with an answer), so that silent
clients could use up every connection. To be given to ``uvicorn.Config(http=Patient)``.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 15.0
"""For the headers of a request to arrive."""
MOST_CONNECTIONS = 1_000
"""Open at once in one process."""


class Patient(H11Protocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()  # its headers are here; how long a body may take is the application's to say
        elif self._deadline is None and data:
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._wait()  # a part of the next request came already

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
