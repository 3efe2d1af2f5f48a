"""Snowflake's Python APIs (snowflake.core), which speak REST, on the embedded Snowflake."""

import json
from http.client import HTTPConnection

import pytest

from airflow_provider_mljobs.emulator.settings import Fault
from tests.budget import budget

POOL, DATABASE, SCHEMA = "rest_pool", "rest_db", "rest_schema"
# A job's program: writes the rows of a query to a table, with the token that Snowflake gives it.
PROGRAM = """
import argparse
from pathlib import Path
from snowflake import connector
import os
parser = argparse.ArgumentParser()
parser.add_argument("--query")
parser.add_argument("--result_table")
options = parser.parse_args()
login = {key: os.environ[f"SNOWFLAKE_{key.upper()}"] for key in ("host", "account", "database", "schema", "warehouse")}
token = Path("/snowflake/session/token").read_text()
with connector.connect(**login, token=token, authenticator="oauth") as connection:
    connection.cursor().execute(f"CREATE OR REPLACE TABLE {options.result_table} AS {options.query}")
print(f"wrote {options.result_table}")
"""


@pytest.fixture(scope="module")
def server():
    """Serve an embedded Snowflake; a statement that takes longer than 100 ms is answered with 202."""
    from airflow_provider_mljobs.emulator import serve

    with serve(long_statement=0.1) as server:
        yield server


@pytest.fixture(scope="module")
def session(server):
    """Return a session of Snowpark."""
    from snowflake.snowpark import Session

    with Session.builder.configs(server.connection_kwargs).create() as session:
        yield session


@pytest.fixture(scope="module")
def root(session):
    """Return the entry point of the API, with a pool and a database that the tests share."""
    from snowflake.core import Root
    from snowflake.core.compute_pool import ComputePool
    from snowflake.core.database import Database

    root = Root(session)
    root.compute_pools.create(ComputePool(name=POOL, instance_family="CPU_X64_XS", min_nodes=1, max_nodes=2))
    root.databases.create(Database(name=DATABASE, comment="it's \\ a test"))
    return root


@pytest.fixture(scope="module")
def schema(root):
    """Return a schema."""
    from snowflake.core.schema import Schema

    return root.databases[DATABASE].schemas.create(Schema(name=SCHEMA))


@pytest.fixture(scope="module")
def image(schema):
    """Return the path of an image in a repository of the schema."""
    from snowflake.core.image_repository import ImageRepository

    repository = schema.image_repositories.create(ImageRepository(name="images"))
    return f"{repository.fetch().repository_url}/my_job_image:latest"


@pytest.fixture(scope="module")
def job(schema, image):
    """Return a finished job that has written a table."""
    from snowflake.core.service import JobService, ServiceSpec

    container = {
        "name": "main",
        "image": image,
        "command": ["python", "-c", PROGRAM],
        "env": {"SNOWFLAKE_WAREHOUSE": "MLJOBS_WH"},
        "args": ["--query=SELECT 1 AS A, 'it''s' AS B", "--result_table=results"],
    }
    spec = ServiceSpec(json.dumps({"spec": {"containers": [container]}}))
    return schema.services.execute_job(JobService(name="test_job", compute_pool=POOL, spec=spec, comment="mine"))


class TestJobs:
    """A job from its submit to its end."""

    def test_execute(self, job, session):
        """A submit returns when the job has ended, also if that takes longer than one request may."""
        fetched = job.fetch()

        assert ("TEST_JOB", "DONE", True, "mine") == (fetched.name, fetched.status, fetched.is_job, fetched.comment)
        assert "--result_table=results" in fetched.spec.spec_text
        assert [(1, "it's")] == session.sql(f"SELECT * FROM {DATABASE}.{SCHEMA}.results").collect()

    def test_logs(self, job):
        """The log of a container is that of SYSTEM$GET_SERVICE_LOGS."""
        assert "wrote results\n" == job.get_service_logs(0, "main")
        assert "wrote results\n" == job.get_service_logs(0, "main", num_lines=1)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_status(self, job):
        """The status of a container is that of SYSTEM$GET_SERVICE_STATUS."""
        assert [("main", "DONE")] == [(row["containerName"], row["status"]) for row in job.get_service_status()]

    def test_containers(self, job):
        """Containers, instances, endpoints and roles are the rows of the SHOW statements."""
        (container,) = job.get_containers()
        (instance,) = job.get_instances()
        (role,) = job.get_roles()

        assert ("0", "main", "DONE", 0) == (
            container.instance_id, container.container_name, container.status, container.restart_count,
        )  # fmt: skip
        assert ("TEST_JOB", "0", "SUCCEEDED") == (instance.service_name, instance.instance_id, instance.status)
        assert ([], "ALL_ENDPOINTS_USAGE") == (list(job.get_endpoints()), role.name)

    def test_listing(self, schema, job):
        """A listing has the jobs of the schema with their specifications; a pattern selects."""
        (listed,) = schema.services.iter(like="test%")

        assert ("TEST_JOB", job.fetch().spec.spec_text) == (listed.name, listed.spec.spec_text)
        assert [] == list(schema.services.iter(like="other%"))

    def test_asynchronous_job_from_a_stage(self, schema, image, tmp_path):
        """An asynchronous job's specification may be a file on a stage; a drop removes the job."""
        from snowflake.core.exceptions import NotFoundError
        from snowflake.core.service import JobService, ServiceSpec
        from snowflake.core.stage import Stage

        stage = schema.stages.create(Stage(name="specs"))
        containers = [{"name": "main", "image": image, "command": ["sleep", "600"]}]
        (tmp_path / "job.yaml").write_text(json.dumps({"spec": {"containers": containers}}))
        stage.put(tmp_path / "job.yaml", "/a", auto_compress=False)
        spec = ServiceSpec(f"@{DATABASE}.{SCHEMA}.specs/a/job.yaml")
        job = schema.services.execute_job(JobService(name="sleeper", compute_pool=POOL, spec=spec, is_async_job=True))
        status, is_async = job.fetch().status, job.fetch().is_async_job
        job.drop()

        assert (True, True) == (status in {"PENDING", "RUNNING"}, is_async)
        with pytest.raises(NotFoundError):
            job.fetch()
        job.drop(if_exists=True)

    def test_a_name_that_is_taken(self, schema, image, job):
        """A second job of the same name is a conflict."""
        from snowflake.core.exceptions import ConflictError
        from snowflake.core.service import JobService, ServiceSpec

        containers = [{"name": "main", "image": image, "command": ["true"]}]
        spec = ServiceSpec(json.dumps({"spec": {"containers": containers}}))

        with pytest.raises(ConflictError, match="Object 'TEST_JOB' already exists"):
            schema.services.execute_job(JobService(name=job.name, compute_pool=POOL, spec=spec))

    def test_a_specification_that_is_wrong(self, schema):
        """An invalid specification is a bad request with Snowflake's text."""
        from snowflake.core.exceptions import APIError
        from snowflake.core.service import JobService, ServiceSpec

        with pytest.raises(APIError, match=r"\(400\)[\s\S]*Invalid spec[\s\S]*Error Code: 395018"):
            schema.services.execute_job(JobService(name="j", compute_pool=POOL, spec=ServiceSpec("spec: {}")))

    def test_services_are_refused(self, schema):
        """A service that runs for ever and a service function are refused with 501, and so is suspending a job."""
        from snowflake.core.exceptions import APIError, ServerError
        from snowflake.core.function import ServiceFunction
        from snowflake.core.service import Service, ServiceSpec

        service = Service(name="echo", compute_pool=POOL, spec=ServiceSpec("spec: {}"), min_instances=1)
        function = ServiceFunction(
            name="f", arguments=[], returns="TEXT", service="echo", endpoint="e", path="/", max_batch_rows=1
        )

        with pytest.raises(ServerError, match="CREATE SERVICE"):
            schema.services.create(service)
        with pytest.raises(ServerError, match="CREATE FUNCTION"):
            schema.functions.create(function)
        with pytest.raises(APIError, match="ALTER SERVICE is not supported for job service 'TEST_JOB'"):
            schema.services["test_job"].suspend()


class TestPools:
    """Compute pools."""

    def test_life(self, root):
        """A pool is created suspended, fetched, listed, resumed, suspended and dropped."""
        from snowflake.core import CreateMode
        from snowflake.core.compute_pool import ComputePool

        new = ComputePool(
            name="other", instance_family="CPU_X64_S", min_nodes=1, max_nodes=3, auto_resume=False,
            auto_suspend_secs=60, comment="c",
        )  # fmt: skip
        pool = root.compute_pools.create(new, initially_suspended=True, mode=CreateMode.if_not_exists)
        root.compute_pools.create(new, mode=CreateMode.if_not_exists)
        created = pool.fetch()
        pool.resume()
        resumed = pool.fetch()
        pool.suspend()
        suspended = pool.fetch()
        names = [pool.name for pool in root.compute_pools.iter(like="oth%")]
        pool.drop()

        assert ("OTHER", "SUSPENDED", 1, 3, "CPU_X64_S", False, 60, "c") == (
            created.name, created.state, created.min_nodes, created.max_nodes, created.instance_family,
            created.auto_resume, created.auto_suspend_secs, created.comment,
        )  # fmt: skip
        assert ("IDLE", "Compute pool is idle", "SUSPENDED") == (
            resumed.state, resumed.status_message, suspended.state,
        )  # fmt: skip
        assert (["OTHER"], []) == (names, list(root.compute_pools.iter(like="oth%")))

    def test_stop_all_services(self, root, schema, image):
        """Stopping the services of a pool cancels its jobs."""
        from snowflake.core.service import JobService, ServiceSpec

        container = {"name": "main", "image": image, "command": ["sleep", "600"]}
        spec = ServiceSpec(json.dumps({"spec": {"containers": [container]}}))
        job = schema.services.execute_job(JobService(name="stopped", compute_pool=POOL, spec=spec, is_async_job=True))
        root.compute_pools[POOL].stop_all_services()
        status = job.fetch().status
        job.drop()

        assert status in {"CANCELLING", "CANCELLED"}

    def test_errors(self, root):
        """A pool that doesn't exist is not found; one with an unknown family is a bad request."""
        from snowflake.core.compute_pool import ComputePool
        from snowflake.core.exceptions import APIError, NotFoundError

        with pytest.raises(NotFoundError, match="Compute pool 'NONE' does not exist or not authorized"):
            root.compute_pools["none"].resume()
        with pytest.raises(APIError, match="invalid instance family 'HUGE'"):
            root.compute_pools.create(ComputePool(name="x", instance_family="HUGE", min_nodes=1, max_nodes=1))


class TestObjects:
    """The objects around jobs."""

    def test_databases_and_schemas(self, root, schema):
        """Databases and schemas are listed and fetched with their properties; creating one moves no session."""
        database = root.databases[DATABASE].fetch()
        (listed,) = root.databases[DATABASE].schemas.iter(like="rest%")

        assert ("REST_DB", "PERMANENT", 1) == (database.name, database.kind, database.retention_time)
        assert ("REST_SCHEMA", "REST_DB") == (listed.name, schema.fetch().database_name)
        assert "MLJOBS_DB" == root.connection.cursor().execute("SELECT CURRENT_DATABASE()").fetchone()[0]

    def test_quoted_names(self, root):
        """A name in quotes keeps its case and its signs, in paths, statements and answers."""
        from snowflake.core.exceptions import NotFoundError
        from snowflake.core.schema import Schema

        name = '"a ""b"" %/:é"'
        schema = root.databases[DATABASE].schemas.create(Schema(name=name))
        fetched = schema.fetch().name
        schema.drop()

        assert name == fetched
        with pytest.raises(NotFoundError):
            schema.fetch()

    def test_stages(self, schema, tmp_path):
        """A stage has its properties; files go in and out, and are listed."""
        from snowflake.core.stage import Stage, StageDirectoryTable, StageEncryption

        stage = schema.stages.create(
            Stage(
                name="files",
                comment="c",
                directory_table=StageDirectoryTable(enable=True),
                encryption=StageEncryption(type="SNOWFLAKE_SSE"),
            )
        )
        (tmp_path / "a.txt").write_text("text")
        stage.put(tmp_path / "a.txt", "/folder", auto_compress=False)
        stage.get("/folder", tmp_path / "back")
        files = [(file.name, file.size) for file in stage.list_files()]
        fetched = stage.fetch()
        names = [stage.name for stage in schema.stages.iter(like="files")]
        stage.drop()

        assert ("c", True, "PERMANENT") == (fetched.comment, fetched.directory_table.enable, fetched.kind)
        assert ([("files/folder/a.txt", "4")], "text") == (files, (tmp_path / "back" / "a.txt").read_text())
        assert ["FILES"] == names

    def test_image_repositories(self, schema, image):
        """A repository has its address, and holds no images; dropping it removes it."""
        from snowflake.core.image_repository import ImageRepository

        repository = schema.image_repositories.create(ImageRepository(name="others"))
        url = repository.fetch().repository_url
        images = list(repository.list_images_in_repository())
        repository.drop()

        assert ("/rest_db/rest_schema/others", []) == (url[url.index("/") :], images)
        assert ["IMAGES"] == [listed.name for listed in schema.image_repositories.iter()]

    def test_roles_grants_and_warehouses(self, root, server):
        """Roles, grants and warehouses become the SQL statements that a tutorial names beside them."""
        from snowflake.core import CreateMode
        from snowflake.core.grant import Grant, Grantees, Privileges, Securables
        from snowflake.core.role import Role
        from snowflake.core.warehouse import Warehouse

        role = Grantees.role(name="r")
        server.statements.clear()
        root.roles.create(Role(name="r"), mode=CreateMode.if_not_exists)
        root.warehouses.create(Warehouse(name="wh", warehouse_size="X-SMALL"), mode=CreateMode.or_replace)
        for grant in (
            Grant(securable=Securables.role("r"), grantee=Grantees.user(name="mljobs")),
            Grant(
                privileges=[Privileges.usage, Privileges.operate],
                securable=Securables.compute_pool(POOL),
                grantee=role,
                grant_option=True,
            ),
            Grant(privileges=[Privileges.bind_service_endpoint], securable=Securables.current_account, grantee=role),
        ):
            root.grants.grant(grant)
        root.grants.revoke(Grant(privileges=[Privileges.usage], securable=Securables.compute_pool(POOL), grantee=role))
        statements = server.statements.texts
        size = root.warehouses["wh"].fetch().size
        root.warehouses["wh"].drop()
        root.roles["r"].drop()

        assert [
            "CREATE ROLE IF NOT EXISTS R",
            "CREATE OR REPLACE WAREHOUSE WH WAREHOUSE_SIZE = 'X-SMALL'",
            "GRANT ROLE R TO USER MLJOBS",
            "GRANT USAGE, OPERATE ON COMPUTE POOL REST_POOL TO ROLE R WITH GRANT OPTION",
            "GRANT BIND SERVICE ENDPOINT ON ACCOUNT TO ROLE R",
            "REVOKE USAGE ON COMPUTE POOL REST_POOL FROM ROLE R",
        ] == statements
        assert "X-Small" == size

    def test_rights_of_a_role(self, root, schema, server):
        """A request has the rights of its session's role: 404 for what the role doesn't see, 403 beyond its rights."""
        from snowflake.connector import connect
        from snowflake.core import Root
        from snowflake.core.exceptions import ForbiddenError, NotFoundError
        from snowflake.core.grant import Grant, Grantees, Securables
        from snowflake.core.role import Role, Securable

        role = root.roles.create(Role(name="reader"))
        role.grant_privileges(["USAGE", "MONITOR"], "COMPUTE POOL", Securable(name=POOL))
        root.grants.grant(Grant(securable=Securables.role("reader"), grantee=Grantees.user(name="mljobs")))
        granted = [(grant.privileges, grant.securable_name) for grant in root.grants.to(Grantees.role("reader"))]
        users = [grant.grantee_name for grant in role.iter_grants_of()]
        with connect(**server.connection_kwargs, role="READER") as connection:
            reader = Root(connection)
            state = reader.compute_pools[POOL].fetch().state

            with pytest.raises(ForbiddenError, match="Insufficient privileges to operate on compute pool 'REST_POOL'"):
                reader.compute_pools[POOL].suspend()
            with pytest.raises(NotFoundError, match="REST_DB"):
                reader.databases[DATABASE].drop()
        role.revoke_privileges(["USAGE", "MONITOR"], "COMPUTE POOL", Securable(name=POOL))
        remaining = list(root.grants.to(Grantees.role("reader")))
        role.drop()

        assert ("MLJOBS" in users, []) == (True, remaining)
        assert [(["MONITOR"], "REST_POOL"), (["USAGE"], "REST_POOL")] == sorted(granted)
        assert state in {"IDLE", "ACTIVE"}

    def test_properties_that_have_no_effect_here(self, schema):
        """A property that can't be set is refused by name."""
        from snowflake.core.exceptions import ServerError
        from snowflake.core.stage import Stage

        with pytest.raises(ServerError, match="The property 'url', here 's3://b/p/', is not supported"):
            schema.stages.create(Stage(name="external", url="s3://b/p/"))


def call(server, token, method, path, body=None):
    """Send a request; return status and JSON."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=budget())
    headers = {"Authorization": f'Snowflake Token="{token}"', "Content-Type": "application/json"}
    connection.request(method, f"/api/v2/{path}", json.dumps(body), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


@pytest.fixture(scope="module")
def token(root):
    """Return the token of a session."""
    return root.connection.rest.token


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "users", None, (501, "000002")),
        ("POST", "compute-pools/rest_pool:explode", {}, (501, "000002")),
        ("GET", "databases/rest_db/schemas/public/alerts/x", None, (501, "000002")),
        ("GET", "image-repositories/", None, (404, "390404")),
        ("GET", "databases/rest_db/image-repositories/", None, (404, "390404")),
        ("GET", "databases/rest_db/schemas/public/wonders/", None, (404, "390404")),
        ("PUT", "compute-pools/rest_pool", {"name": "rest_pool"}, (501, "000002")),
        ("GET", "databases?history=true", None, (501, "000002")),
        ("POST", "compute-pools", {}, (400, "391917")),
        ("POST", "compute-pools", {"name": "x", "min_nodes": "1; DROP DATABASE rest_db"}, (400, "391917")),
        ("POST", "compute-pools?createMode=never", {"name": "x"}, (400, "391917")),
        ("POST", "roles", {"name": "x; DROP DATABASE rest_db"}, (400, "001003")),
        ("DELETE", "databases/x%3B%20DROP%20DATABASE%20rest_db", None, (400, "001003")),
        ("POST", "grants/role/r/database/rest_db/privileges", {"privileges": ["USAGE ON x; --"]}, (400, "391917")),
        ("GET", "databases/rest_db/schemas/public/services/j/logs?instanceId=x&containerName=m", None, (400, "391917")),
        ("GET", "results/00000000-0000-0000-0000-000000000000", None, (404, "000709")),
        ("POST", "databases/rest_db/schemas/public/services:execute-job", {"name": "j", "spec": []}, (400, "391917")),
    ],
)
def test_requests_that_cannot_be_answered(server, token, method, path, body, expected):
    """A request that isn't supported or not valid is refused, with the members of Snowflake's ErrorResponse."""
    status, error = call(server, token, method, path, body)

    assert expected == (status, error["code"])
    assert {"message", "code", "error_code", "request_id"} == error.keys()


def test_a_slash_at_the_end(server, token):
    """The path of a collection may end with a slash, as in the Snowflake CLI's ``object create``."""
    path = "databases/rest_db/schemas/public/image-repositories/"
    created = call(server, token, "POST", path, {"name": "cli"})
    status, listed = call(server, token, "GET", path)

    assert (200, {"status": "Image repository CLI successfully created."}) == created
    assert (200, ["CLI"]) == (status, [repository["name"] for repository in listed])


def test_a_token_that_is_unknown(server):
    """A request without a session is unauthorized."""
    status, error = call(server, "none", "GET", "databases")

    assert (401, "390111") == (status, error["code"])


def test_an_expired_session(server, root):
    """The client renews an expired session and repeats the request."""
    server.faults.add(Fault(matching="SHOW DATABASES", effect="session_expired", nth=1))

    assert "REST_DB" in [database.name for database in root.databases.iter()]
