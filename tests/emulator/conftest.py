"""Fixtures of the emulator's own tests."""

import pytest


@pytest.fixture
def cursor(connection):
    """Return a cursor of a fresh session."""
    return connection.cursor()


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a server with settings of its own; it stops after the test."""
    from airflow_provider_mljobs.emulator import serve

    servers = []

    def start(**settings):
        server = serve(settings.pop("root", tmp_path / f"root-{len(servers)}"), **settings)
        servers.append(server)
        return server

    yield start

    for server in servers:
        server.stop()


@pytest.fixture
def connect():
    """Return a function that connects to a server; the connections are closed after the test."""
    from snowflake import connector

    connections = []

    def connect(server, **changes):
        connections.append(connector.connect(**{**server.connection_kwargs, "paramstyle": "qmark", **changes}))
        return connections[-1]

    yield connect

    for connection in connections:
        connection.close()
