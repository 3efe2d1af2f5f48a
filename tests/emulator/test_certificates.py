import http.client
import socket
import ssl
import threading
from contextlib import closing
from pathlib import Path

import certifi
import pytest
from cryptography import x509

from airflow_provider_mljobs.emulator.server.certificates import Certificates
from airflow_provider_mljobs.emulator.settings import Fault
from tests.budget import budget

BUNDLE = "REQUESTS_CA_BUNDLE"


@pytest.fixture
def https(connect, monkeypatch):
    """Return a function that connects as a client without a protocol setting does."""

    def https(server, **changes):
        monkeypatch.setenv(BUNDLE, server.environment[BUNDLE])
        return connect(server, protocol="https", **changes)

    return https


def read(bundle):
    """Return the certificates in a file, in their order, as text."""
    begin = "-----BEGIN CERTIFICATE-----"
    return [begin + text.partition("#")[0].rstrip() for text in Path(bundle).read_text().split(begin)[1:]]


def client(server):
    """Return a client that speaks TLS and is not the connector."""
    context = ssl.create_default_context(cafile=server.environment[BUNDLE])
    return closing(http.client.HTTPSConnection("127.0.0.1", server.port, context=context))


def ask(connection):
    """Send a request, and return the status of the answer."""
    connection.request("POST", "/telemetry/send", "{}")
    with connection.getresponse() as response:
        response.read()
        return response.status


def test_one_port_speaks_http_and_https(snowflake, connect, https):
    """A client without a protocol setting connects beside one that uses HTTP."""
    encrypted, plain = https(snowflake), connect(snowflake)
    encrypted.cursor().execute("CREATE OR REPLACE TABLE tls AS SELECT 42 AS a")

    assert [(42,)] == plain.cursor().execute("SELECT a FROM tls").fetchall()
    assert ["http", "https"] == sorted(connection._protocol for connection in (plain, encrypted))


def test_host_name(snowflake, https):
    """The certificate is also valid for the name of the loopback address."""
    assert [(1,)] == https(snowflake, host="localhost").cursor().execute("SELECT 1").fetchall()


def test_many_rows(snowflake, https):
    """Large answers and large requests pass through TLS whole."""
    cursor = https(snowflake).cursor()
    cursor.execute("CREATE OR REPLACE TABLE wide (a INT, b VARCHAR)")
    cursor.executemany("INSERT INTO wide VALUES (?, ?)", [(number, "x" * 100) for number in range(20_000)])

    assert (20_000, 2_000_000) == cursor.execute("SELECT COUNT(*), SUM(LENGTH(b)) FROM wide").fetchone()


def test_without_the_bundle(snowflake, connect, monkeypatch):
    """A client that trusts public authorities only is refused by its own check."""
    from snowflake.connector.errors import OperationalError

    monkeypatch.delenv(BUNDLE, raising=False)

    with pytest.raises(OperationalError, match="certificate verify failed"):
        connect(snowflake, protocol="https", login_timeout=5, network_timeout=5)


def test_two_servers(start, https, monkeypatch):
    """The bundle of a server that was started in the environment of another one has the authorities of both."""
    first = start()
    monkeypatch.setenv(BUNDLE, first.environment[BUNDLE])
    second = start()
    both = [https(second, port=server.port, password=server.password) for server in (first, second)]

    assert [(1,), (1,)] == [connection.cursor().execute("SELECT 1").fetchone() for connection in both]


def test_public_authorities_stay_trusted(tmp_path):
    """Other programs read the variable, too: the file adds one authority to those that they trust already."""
    *others, own = read(Certificates(tmp_path / "bundle.pem", {}).bundle)

    assert others == read(certifi.where())
    assert own not in others


def test_the_authority_is_good_for_loopback_only(snowflake):
    """The authority can sign for this machine only, and no private key is on the disk."""
    authority = x509.load_pem_x509_certificate(read(snowflake.environment[BUNDLE])[-1].encode())
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
    files = [path for path in snowflake.root.rglob("*") if path.is_file()]

    assert constraints.critical
    assert ["127.0.0.1/32", "localhost"] == [str(name.value) for name in constraints.value.permitted_subtrees]
    assert [] == [path for path in files if b"PRIVATE KEY" in path.read_bytes()]


def test_strict_checks(snowflake):
    """Python 3.13 and newer check certificates by the letter of RFC 5280."""
    context = ssl.create_default_context(cafile=snowflake.environment[BUNDLE])
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", snowflake.port)) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as encrypted,
    ):
        names = encrypted.getpeercert()["subjectAltName"]

    assert (("IP Address", "127.0.0.1"), ("DNS", "localhost")) == names


@pytest.mark.parametrize("variable", [BUNDLE, "CURL_CA_BUNDLE"])
def test_authorities_of_a_company(tmp_path, variable):
    """Authorities that the environment names stay trusted, in a file or in a directory, in place of the public ones."""
    company = Certificates(tmp_path / "company.pem", {}).bundle
    own = read(company)[-1]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "company.crt").write_text(own)
    (folder / "5ad8a5d6.0").symlink_to("company.crt")

    assert own in read(Certificates(tmp_path / "file.pem", {variable: str(company)}).bundle)
    assert [own] == read(Certificates(tmp_path / "directory.pem", {variable: str(folder)}).bundle)[:-1]


def test_a_file_that_is_gone(tmp_path):
    """A variable that names a deleted file is ignored."""
    bundle = Certificates(tmp_path / "bundle.pem", {BUNDLE: str(tmp_path / "gone.pem")}).bundle

    assert read(certifi.where()) == read(bundle)[:-1]


def test_restarts_leave_one_authority(tmp_path):
    """The authority of an earlier start is dropped, also if the shell still has its variable."""
    bundle = tmp_path / "bundle.pem"
    for _ in range(3):
        Certificates(bundle, {BUNDLE: str(bundle)} if bundle.exists() else {})

    assert read(certifi.where()) == read(bundle)[:-1]


def test_faults_cut_encrypted_connections(start, https):
    """The connector repeats a request after a reset, with TLS as without."""
    cursor = https(start(faults=(Fault(matching="INSERT", effect="reset_after", nth=1),))).cursor()
    cursor.execute("CREATE TABLE t (a INT)")
    cursor.execute("INSERT INTO t VALUES (1)")

    assert [(1,)] == cursor.execute("SELECT * FROM t").fetchall()


def test_an_outage_cuts_encrypted_connections(start, https):
    """An outage cuts open TLS connections and refuses new ones; afterwards clients connect again."""
    from snowflake.connector.errors import OperationalError

    server = start()
    with client(server) as connection:
        before = ask(connection)
        with server.outage():
            with pytest.raises(OSError, match=r"."):
                ask(connection)
            with pytest.raises(OperationalError):
                https(server, login_timeout=1, network_timeout=1)

    assert (200, [(1,)]) == (before, https(server).cursor().execute("SELECT 1").fetchall())


def test_a_stop_ends_encrypted_connections(start):
    """A client that waits for an answer over TLS is not left hanging."""
    server = start()
    ended = threading.Event()
    with client(server) as connection:
        status = ask(connection)

        def wait():
            connection.sock.recv(1)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        server.stop()

        assert (200, True) == (status, ended.wait(budget()))


def test_half_a_handshake(snowflake, connect):
    """A client that breaks off its TLS handshake, or sends nonsense, disturbs no other."""
    for beginning in (b"\x16", b"\x16\x03\x01nonsense", b""):
        with socket.create_connection(("127.0.0.1", snowflake.port)) as connection:
            connection.sendall(beginning)

    assert [(1,)] == connect(snowflake).cursor().execute("SELECT 1").fetchall()
