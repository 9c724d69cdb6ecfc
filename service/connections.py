"""What a connection may cost before a request is complete, and how connections end when the server does."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

# The request line and all headers of one request, in bytes.
MAX_HEAD = 32_768
# A client has this long to send them, from its first byte on or from connecting.
HEAD_WITHIN_S = 20.0
# A client that sends a body must send some of it at least this often.
BODY_SILENT_S = 60.0
# After an answer that came before the end of the body, this long is waited for the rest of the body.
REST_WITHIN_S = 2.0
# When the server ends, an idle connection may bring one more request within this time.
LAST_REQUEST_WITHIN_S = 1.0
# Requests that are under way when the server ends have this long; then they are answered 503.
FINISH_WITHIN_S = 8
_CLOSE = (b"connection", b"close")
_log = logging.getLogger(__name__)


class LimitedConnection(H11Protocol):
    """One connection of a client, with limits on the size of a request's head and on the time that it takes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._set_deadline(HEAD_WITHIN_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what was sent, and set the deadline of what is to come next."""
        state = self.conn.their_state
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            if not self._body_is_unwanted():
                self._set_deadline(BODY_SILENT_S, self._body_is_late)
        elif self.conn.their_state is not h11.IDLE:
            self._clear_deadline()
        elif state is not h11.IDLE or self._deadline is None:
            # the head of the next request has begun; more of the same head does not move its deadline
            self._set_deadline(HEAD_WITHIN_S, self._head_is_late)

    def handle_events(self) -> None:
        """As usual; an answer given while the server ends is the connection's last."""
        super().handle_events()
        if self._ending and self.cycle is not None and not self.cycle.response_complete:
            self._make_last()

    def on_response_complete(self) -> None:
        """A body that nobody waits for any more may go on for a moment, so that its sender reads the answer."""
        super().on_response_complete()
        if self._body_is_unwanted() and not self.transport.is_closing():
            self._set_deadline(REST_WITHIN_S, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong with a request that is not HTTP, or whose head is too long, and close."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)  # of h11, whose error is being handled
        too_long = f"the request line and the headers are longer than {MAX_HEAD} bytes; send fewer or shorter headers"
        self._refuse(status, too_long if status == 431 else f"{msg} Send HTTP/1.1 or HTTP/1.0.")

    def shutdown(self) -> None:
        """The server ends: what is under way is finished, and a request that has just been sent is still answered."""
        self._ending = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_REQUEST_WITHIN_S, self._close_if_idle)
        else:
            self._make_last()

    def _make_last(self) -> None:
        self.cycle.keep_alive = False
        if _CLOSE not in self.cycle.default_headers:
            self.cycle.default_headers = [*self.cycle.default_headers, _CLOSE]

    def _close_if_idle(self) -> None:
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _body_is_unwanted(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the headers did not arrive within {HEAD_WITHIN_S:g} s")
        else:
            self.transport.close()

    def _body_is_late(self) -> None:
        if self.flow.read_paused:  # it is the service that does not read
            self._set_deadline(BODY_SILENT_S, self._body_is_late)
        elif self.conn.their_state is h11.SEND_BODY:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        title = HTTPStatus(status).phrase
        body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode()), _CLOSE]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is being sent already
            start = h11.Response(status_code=status, headers=headers, reason=title.encode())
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _set_deadline(self, seconds: float, late: Callable[[], None]) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, late)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """A server that tells the application of its end before it waits for the requests that are under way."""

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_end = on_end

    async def shutdown(self, sockets: Any = None) -> None:
        """End: whoever waits for a job is answered now, and not when the job ends."""
        _log.info("ending: requests that wait for a job are answered now")
        self._on_end()
        await super().shutdown(sockets)
