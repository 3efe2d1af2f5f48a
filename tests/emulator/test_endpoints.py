"""SHOW ENDPOINTS, through the connector."""

import json
import re

import pytest

from airflow_provider_mljobs.emulator.settings import Ready, VirtualJob

IMAGE = "/snowflake/images/snowflake_images/exampleimage:latest"
PUBLIC = {"name": "dashboard", "port": 8265, "public": True}
PRIVATE = {"name": "metrics", "port": 9090}
RANGE = {"name": "workers", "portRange": "10000-10100", "protocol": "TCP"}
PROVISIONING = "Endpoints provisioning in progress... check back in a few minutes"
HOST = r"[a-z2-7]{7}-spcs\.embedded-mljobs\.local\.aws\.snowflake\.app"


@pytest.fixture
def lab(start, connect):
    """Return a function that starts a server and returns a function that runs a statement. Jobs on it are virtual."""
    from snowflake.connector import DictCursor

    def lab(**settings):
        connection = connect(start(virtual_jobs=(VirtualJob(name="%", seconds=60),), **settings))

        def run(text, *binds):
            return connection.cursor(DictCursor).execute(text, binds or None).fetchall()

        run("CREATE COMPUTE POOL P MIN_NODES = 1 MAX_NODES = 1 INSTANCE_FAMILY = CPU_X64_S")
        return run

    return lab


def submit(sql, name, *endpoints):
    """Start a job with endpoints."""
    spec = {"containers": [{"name": "main", "image": IMAGE}], "endpoints": list(endpoints)}
    text = json.dumps({"spec": spec})
    sql(f"EXECUTE JOB SERVICE IN COMPUTE POOL P NAME = {name} ASYNC = TRUE FROM SPECIFICATION ?", text)


def ingress(sql, name):
    """Return the addresses of the endpoints."""
    return [row["ingress_url"] for row in sql(f"SHOW ENDPOINTS IN SERVICE {name}")]


def test_columns(lab):
    """Endpoints have a port or a range of ports, and an address if they are public."""
    sql = lab()
    submit(sql, "J", PUBLIC, PRIVATE, RANGE)
    public, *others = sql("SHOW ENDPOINTS IN SERVICE J")

    assert [
        {"name": "metrics", "port": 9090, "port_range": None, "protocol": "HTTP", "is_public": False},
        {"name": "workers", "port": None, "port_range": "10000-10100", "protocol": "TCP", "is_public": False},
    ] == [{name: value for name, value in row.items() if name != "ingress_url"} for row in others]
    assert [None, None] == [row["ingress_url"] for row in others]
    assert ["name", "port", "port_range", "protocol", "is_public", "ingress_url"] == list(public)
    assert public["is_public"] is True


def test_address(lab):
    """Each endpoint has its own address, which stays."""
    sql = lab()
    for name in ("A", "B"):
        submit(sql, name, PUBLIC, {**PUBLIC, "name": "second", "port": 1})
    addresses = [*ingress(sql, "A"), *ingress(sql, "B")]

    assert all(re.fullmatch(HOST, address) for address in addresses)
    assert 4 == len(set(addresses))
    assert addresses == [*ingress(sql, "A"), *ingress(sql, "B")]


@pytest.mark.parametrize("ready", [Ready(polls=2), Ready(seconds=0.5)])
def test_provisioning(lab, ready):
    """Until an endpoint has an address, a text says that it is being provisioned."""
    sql = lab(endpoint_ready=ready)
    submit(sql, "J", PUBLIC)
    seen = [ingress(sql, "J")[0]]
    while seen[-1] == PROVISIONING:
        sql("SELECT SYSTEM$WAIT(50, 'MILLISECONDS')")
        seen += ingress(sql, "J")

    assert PROVISIONING == seen[0]
    assert re.fullmatch(HOST, seen[-1])
    assert not ready.polls or 3 == len(seen)


def test_pending(lab):
    """Endpoints of a job that doesn't run have no address."""
    sql = lab(job_ready=Ready(seconds=60))
    submit(sql, "J", PUBLIC)

    assert [PROVISIONING] == ingress(sql, "J")


def test_names_of_the_account(lab):
    """The address contains organization, account, region and cloud, as the account's functions return them."""
    sql = lab()
    submit(sql, "J", PUBLIC)
    (row,) = sql(
        "SELECT LOWER(CURRENT_ORGANIZATION_NAME() || '-' || CURRENT_ACCOUNT_NAME()) AS NAME, "
        "LOWER(CURRENT_REGION()) AS REGION"
    )
    cloud, region = row["REGION"].split("_")

    assert ingress(sql, "J")[0].endswith(f"-spcs.{row['NAME']}.{region}.{cloud}.snowflake.app")
