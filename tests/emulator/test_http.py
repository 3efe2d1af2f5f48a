"""Requests as no client of Snowflake's sends them: bounded, answered with an HTTP status, harmless to other clients."""

import gzip
import io
import json
import socket
from email.message import Message
from http import HTTPStatus
from pathlib import Path

import pytest

from airflow_provider_mljobs.emulator.server import bodies
from tests.budget import budget

LOGIN = "/session/v1/login-request"
GIGABYTE = 1 << 30


@pytest.fixture
def wire(snowflake):
    """Return a function that sends bytes over a new connection."""
    connections = []

    def send(data):
        connection = socket.create_connection(("127.0.0.1", snowflake.port), timeout=budget())
        connections.append(connection)
        connection.sendall(data)
        return connection

    yield send

    for connection in connections:
        connection.close()


def request(snowflake, body=b"", *headers, method="POST", path=LOGIN, length=True):
    """Write a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{snowflake.port}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(connection):
    """Read one answer: its status, and whether the connection stays open."""
    stream = connection.makefile("rb")
    status = int(stream.readline().split()[1])
    headers = dict(line.decode().strip().lower().split(": ") for line in iter(stream.readline, b"\r\n"))
    body = json.loads(stream.read(int(headers["content-length"])))
    return status, headers.get("connection") != "close", body.get("success", False)


def is_closed(connection):
    """Return whether the server has closed a connection."""
    return connection.recv(1) == b""


def bomb(size, part=1 << 20):
    """Return a gzip file of so many zeros."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        for _ in range(size // part):
            stream.write(bytes(part))
    return buffer.getvalue()


def peak_memory():
    """Return the peak memory of this process, which runs the server, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_a_gzip_bomb_before_login(snowflake, wire, cursor):
    """A small body that decompresses to a large one is refused early, and the connection stays."""
    data = bomb(GIGABYTE)
    before = peak_memory()
    connection = wire(request(snowflake, data, "Content-Encoding: gzip"))

    assert answer(connection) == (413, True, False)
    assert peak_memory() - before < 64 << 20
    connection.sendall(request(snowflake, b"{}"))
    assert answer(connection)[0] == 200
    assert cursor.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_compressed_bodies(snowflake, wire, encoding):
    """A compressed login is read, also in several parts."""
    data = gzip.compress(b'{"data":') + gzip.compress(b'{"LOGIN_NAME": "x"}}')

    assert answer(wire(request(snowflake, data, f"Content-Encoding: {encoding}"))) == (200, True, False)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"rest", 400),
        ("deflate", b"{}", 415),
        ("br", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
        ("identity", b"{", 400),
        ("identity", b"\xff\xfe", 400),
        ("identity", b"[" * 100_000, 400),
        ("identity", b'{"a":' * 100_000, 400),
        ("identity", b"1" * 100_000, 400),
        ("gzip", gzip.compress(b"[" * 1_000_000, mtime=0), 400),
        ("gzip", gzip.compress(b"", mtime=0) * 50_000 + b"rest", 400),
    ],
)
def test_bodies_that_cannot_be_read(snowflake, wire, caplog, encoding, body, status):
    """A body that isn't JSON, too deep or in an unknown encoding is refused; the connection stays."""
    connection = wire(request(snowflake, body, f"Content-Encoding: {encoding}"))

    assert answer(connection) == (status, True, False)
    connection.sendall(request(snowflake, b"{}"))
    assert answer(connection)[0] == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'"x"', b'{"data": 5}', b'{"data": [1]}', b'{"data": {"LOGIN_NAME": {}, "PASSWORD": []}}', b""],
)
def test_logins_of_another_shape(snowflake, wire, caplog, body):
    """A login of any other shape counts as one without credentials."""
    connection = wire(request(snowflake, body))

    assert answer(connection) == (200, True, False)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Content-Length: abc"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length: +2"], 400),
        (["Content-Length: 1.5"], 400),
        (["Content-Length: 0x10"], 400),
        (["Content-Length: 1_0"], 400),
        (["Content-Length: ٣"], 400),
        (["Content-Length: 2, 2"], 400),
        (["Content-Length: 2", "Content-Length: 2"], 400),
        (["Content-Length: 2", "Content-Length: 20"], 400),
        (["Content-Length: 99999999999"], 413),
        (["Content-Length: " + "9" * 10_000], 413),
        ([f"Content-Length: {bodies.MAX_ANONYMOUS_BODY + 1}"], 413),
        (["Transfer-Encoding: chunked"], 501),
        (["Transfer-Encoding: chunked", "Content-Length: 2"], 501),
        (["Transfer-Encoding: gzip"], 501),
        (["X: " + "x" * 70_000], 431),
        ([f"X-{n}: x" for n in range(200)], 431),
    ],
)
def test_headers_that_cannot_be_read(snowflake, wire, cursor, headers, status):
    """A request without a clear end is refused and its connection closed; other clients are not affected."""
    connection = wire(request(snowflake, b"2\r\n{}\r\n0\r\n\r\n", *headers, length=False))

    assert answer(connection) == (status, False, False)
    assert is_closed(connection)
    assert cursor.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1", 414),
        (b"GET", 400),
        (b"GET / HTTP/9", 400),
        (b"BREW / HTTP/1.1", 501),
        (b"PATCH /session HTTP/1.1", 501),
    ],
)
def test_request_lines_that_cannot_be_read(wire, line, status):
    """An invalid request line or an unknown method is refused and the connection closed."""
    connection = wire(line + b"\r\n\r\n")
    head = connection.makefile("rb").read()

    # Without a version the client gets the bare body, as in HTTP 0.9.
    assert head.startswith(b"HTTP/1.1 %d" % status) or b'"success":false' in head
    assert is_closed(connection)


def test_a_path_that_cannot_be_read(snowflake, wire):
    """A path that isn't a URL is refused; the connection stays."""
    connection = wire(request(snowflake, b"{}", path="http://[/x"))

    assert answer(connection) == (400, True, False)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/session/v1", "/queries/1/2", "/api/v2/users", "/api/v2/users/x:explode"])
def test_an_endpoint_that_does_not_exist(snowflake, wire, method, path):
    """An unknown path is refused with 501; the connection stays."""
    connection = wire(request(snowflake, method=method, path=path))

    assert answer(connection) == (501, True, False)


def test_a_large_body_without_a_session(snowflake, wire, connect):
    """A body of a megabyte needs a session; its sender gets the refusal although it is still sending."""
    connection = wire(request(snowflake, b" " * (bodies.MAX_ANONYMOUS_BODY + 1)))
    statement = f"SELECT LENGTH('{'x' * (bodies.MAX_ANONYMOUS_BODY + 1)}')"

    assert answer(connection) == (413, False, False)
    assert connect(snowflake).cursor().execute(statement).fetchone() == (bodies.MAX_ANONYMOUS_BODY + 1,)


def test_a_body_that_never_comes(snowflake, wire, cursor):
    """A client that stalls in its headers or its body holds up no other."""
    for part in (b"POST /session HT", b"POST / HTTP/1.1\r\nA: ", request(snowflake, b"{}" * 1000)[:-1000]):
        wire(part)

    assert cursor.execute("SELECT 1").fetchone() == (1,)


def read(data, length, patience):
    """Read a body that a client sends and does not end."""
    headers = Message()
    headers["Content-Length"] = str(length)
    sender, receiver = socket.socketpair()
    with sender, receiver, receiver.makefile("rb") as stream:
        sender.sendall(data)
        try:
            return bodies.read(stream, receiver, headers, 1 << 20, patience)
        except bodies.RefusedRequestError as refusal:
            return refusal.status


def test_slow_bodies():
    """A body must arrive within a time that grows with its length."""
    assert read(b"abc", 3, 30) == b"abc"
    assert read(b"abc", 4, 0.05) == HTTPStatus.REQUEST_TIMEOUT
