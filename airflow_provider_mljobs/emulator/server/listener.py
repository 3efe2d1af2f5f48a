"""The HTTP side of the embedded Snowflake: the listening socket and the connections."""

from __future__ import annotations

import ctypes
import logging
import socket
import sys
import threading
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.identity import HOST
from airflow_provider_mljobs.emulator.server import bodies
from airflow_provider_mljobs.emulator.server.exchange import Reply, Request
from airflow_provider_mljobs.emulator.server.executor import attempt
from airflow_provider_mljobs.emulator.server.faults import ConnectionCutError, UnavailableError
from airflow_provider_mljobs.emulator.server.protocol import Protocol, failure

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

_ADDRESS_SIZE = 16
# The first byte of a TLS handshake; no HTTP request begins with it.
_HANDSHAKE = b"\x16"
logger = logging.getLogger(__name__)


class Listener(ThreadingHTTPServer):
    """The listening socket, and the connections that came in through it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        super().__init__((HOST, port), _Handler)
        self._tls = tls
        self.protocol: Protocol | None = None
        self.hosts = frozenset({f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"})
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._outage = False

    def serve(self) -> None:
        """Accept connections until :meth:`stop`, without polling as ``serve_forever`` does."""
        while True:
            try:
                request, address = self.get_request()
            except OSError:
                return
            with self._lock:
                self._open.add(request)
                if self._outage:
                    _reset(request)
            self.process_request(request, address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection; the port speaks HTTP, and HTTPS if the client begins with a TLS handshake."""
        if request.recv(1, socket.MSG_PEEK) != _HANDSHAKE:
            super().finish_request(request, client_address)
            return
        with self._encrypted(request) as connection:
            super().finish_request(connection, client_address)

    @contextmanager
    def _encrypted(self, request: socket.socket) -> Iterator[socket.socket]:
        with self._lock:
            # The TLS socket replaces the plain one, so that an outage or a stop cuts the one that is connected.
            self._open.discard(request)
            connection = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            self._open.add(connection)
        try:
            connection.do_handshake()
            yield connection
        finally:
            self.shutdown_request(connection)

    def cut_off(self) -> None:
        """Cut all connections, and each new one until :meth:`let_in`."""
        with self._lock:
            self._outage = True
            for connection in self._open:
                _reset(connection)

    def let_in(self) -> None:
        """Accept connections again after :meth:`cut_off`."""
        with self._lock:
            self._outage = False

    def stop(self) -> None:
        """Close the socket and all connections."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.server_close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _quietly_shut(connection)

    def shutdown_request(self, request: Any) -> None:
        """Remove a connection that ended."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an exception of a connection's thread; a client that disconnects is not an error."""
        del request
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR
        logger.log(level, "Connection of %s ended", client_address, exc_info=True)


def _quietly_shut(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    try:
        # Not the method of an encrypted socket, which would let a thread that uses it send plain text.
        socket.socket.shutdown(connection, how)
    except OSError:
        logger.debug("Connection was closed already")


def _reset(connection: socket.socket) -> None:
    """Cut a connection at once, with a reset instead of an orderly end, also while another thread uses it."""
    # Beyond the socket module: connect() with the address family 0 aborts a connection.
    if ctypes.CDLL(None).connect(connection.fileno(), bytes(_ADDRESS_SIZE), _ADDRESS_SIZE):
        # Some kernels refuse this while a thread waits for the connection.
        _quietly_shut(connection)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests and writes answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # The answer goes out in one piece.
    wbufsize = -1
    server: Listener

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._respond()

    def do_POST(self) -> None:
        """Answer a POST request."""
        self._respond()

    def do_PUT(self) -> None:
        """Answer a PUT request."""
        self._respond()

    def do_DELETE(self) -> None:
        """Answer a DELETE request."""
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        """Log a request at the debug level."""
        logger.debug(format, *args)

    def parse_request(self) -> bool:
        """Read the headers of a request; a client that stalls within them is disconnected."""
        self.connection.settimeout(bodies.PATIENCE)
        try:
            return super().parse_request()
        finally:
            self.connection.settimeout(None)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request and close the connection, because the start of the next request is unknown."""
        del explain
        status = HTTPStatus(code)
        self.close_connection = True
        self._send(_refusal(message or status.phrase, status))
        _quietly_shut(self.connection, socket.SHUT_WR)
        bodies.drain(self.connection)

    def _respond(self) -> None:
        protocol = self.server.protocol
        token = (self.headers.get("Authorization") or "").removeprefix('Snowflake Token="').removesuffix('"')
        has_session = protocol is not None and protocol.sessions.knows(token)
        most = bodies.MAX_BODY if has_session else bodies.MAX_ANONYMOUS_BODY
        try:
            body = bodies.read(self.rfile, self.connection, self.headers, most)
        except bodies.RefusedRequestError as refusal:
            self.send_error(refusal.status, str(refusal))
            return
        if self.headers.get("Host") not in self.server.hosts:
            # Keeps out web pages whose host name resolves to 127.0.0.1.
            self._send(_refusal("Wrong Host header", HTTPStatus.FORBIDDEN))
            return
        try:
            request = self._request(bodies.decode(body, self.headers, most), token)
        except bodies.RefusedRequestError as refusal:
            self._send(_refusal(str(refusal), refusal.status))
            return
        try:
            reply = attempt(lambda: self._reply(request), self.path)
        except ConnectionCutError:
            self._cut()
        except UnavailableError:
            self._send(_refusal("Service unavailable", HTTPStatus.SERVICE_UNAVAILABLE))
        else:
            self._send(Reply.of(failure(reply)) if isinstance(reply, SnowflakeError) else reply)

    def _request(self, body: Mapping[str, Any], token: str) -> Request:
        try:
            url = urlsplit(self.path)
        except ValueError:
            raise bodies.RefusedRequestError(HTTPStatus.BAD_REQUEST, "Invalid path") from None
        return Request(self.command, url.path, dict(parse_qsl(url.query)), token, body)

    def _reply(self, request: Request) -> Reply:
        if self.server.protocol is None:
            raise UnavailableError
        reply = self.server.protocol.reply(request)
        if reply is None:
            # Clients take any reply of status 200 for a success.
            error = failure(not_supported(f"{request.method} {request.path}"))
            return Reply.of(error, HTTPStatus.NOT_IMPLEMENTED)
        return reply

    def _send(self, reply: Reply) -> None:
        # Not compressed: on the loopback interface compression costs more time than it saves.
        self.send_response_only(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)
        self.wfile.flush()

    def _cut(self) -> None:
        self.close_connection = True
        _reset(self.connection)


def _refusal(message: str, status: HTTPStatus) -> Reply:
    return Reply.of({"data": None, "code": None, "message": message, "success": False}, status)
