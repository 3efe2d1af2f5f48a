"""The account under test: one connection, one schema that is made and dropped, and what checks ask of it."""

import contextlib
import json
import os
import secrets
import signal
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.gateway.client import MLJobClient
from airflow_provider_mljobs.gateway.downloads import read_result
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.spec.job import JobSpec
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource, render
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from tests.account.answers import Answer, Column, ask
from tests.account.beliefs import succeeds
from tests.account.masks import Mask

CONNECTION = "MLJOBS_ACCOUNT_CONNECTION"
TERMINAL = {"DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"}
_WHO = (
    "SELECT CURRENT_ACCOUNT(), CURRENT_ACCOUNT_NAME(), CURRENT_ORGANIZATION_NAME(), CURRENT_USER(), CURRENT_ROLE(), "
    "CURRENT_DATABASE(), CURRENT_WAREHOUSE(), CURRENT_AVAILABLE_ROLES(), CURRENT_REGION(), CURRENT_VERSION()"
)
# A pod of a shell; several of them share a node.
SMALL = {"cpu": "100m", "memory": "256Mi"}


class SetupError(Exception):
    """Raised before any check when the settings don't suffice."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run, from the environment.

    :param connection: an Airflow connection as URI or JSON, or the name of one in the connector's connections.toml.
    :param pool: a compute pool for CPU jobs.
    :param gpu_pool: one with GPUs.
    :param eai: an external access integration that reaches PyPI.
    :param second_role: a role that may use the warehouse, and has been granted to the user.
    :param image: an image of one's own, in a repository of the account.
    :param start_seconds: how long a job may take to start: a node has to be provisioned for the first one.
    :param fit_seconds: how long a job that a node has no room for is watched.
    :param is_embedded: whether it is the embedded Snowflake, which runs jobs as this user.
    :param pause: seconds between two looks at a job.
    """

    connection: str
    pool: str
    gpu_pool: str | None = None
    eai: str | None = None
    second_role: str | None = None
    image: str | None = None
    start_seconds: float = 900.0
    fit_seconds: float = 60.0
    is_embedded: bool = False
    pause: float = 2.0

    @classmethod
    def from_environment(cls, environment=os.environ, **changes):
        """Read ``MLJOBS_ACCOUNT_…``; raises :class:`SetupError` without a connection and a pool."""
        names = ("connection", "pool", "gpu_pool", "eai", "second_role", "image")
        values = {name: environment.get(f"MLJOBS_ACCOUNT_{name.upper()}") or None for name in names}
        missing = [f"MLJOBS_ACCOUNT_{name.upper()}" for name in names[:2] if values[name] is None]
        if missing:
            raise SetupError(f"{' and '.join(missing)} must be set; see docs/account.md.")
        return cls(**values, **changes)

    @property
    def airflow_connection(self):
        """The connection as Airflow reads it from the environment."""
        if "://" in self.connection or self.connection.lstrip().startswith("{"):
            return self.connection
        from snowflake.connector.config_manager import CONFIG_MANAGER

        connections = CONFIG_MANAGER["connections"]
        if self.connection not in connections:
            raise SetupError(
                f"{CONNECTION}={self.connection!r} is neither a URI, nor JSON, nor a connection in connections.toml, "
                f"which has {', '.join(map(repr, connections)) or 'none'}."
            )
        values = dict(connections[self.connection])
        # Airflow has the passphrase of a key in the place of the password, and one name for the key's file.
        passphrases = [
            values.pop(name, None) for name in ("password", "private_key_file_pwd", "private_key_passphrase")
        ]
        if "private_key_path" in values:
            values["private_key_file"] = values.pop("private_key_path")
        document = {
            "conn_type": "snowflake",
            "login": values.pop("user", None),
            "password": next(filter(None, passphrases), None),
            "schema": values.pop("schema", None),
            "extra": values,
        }
        return json.dumps(document)


@dataclass
class Trial:
    """The answers and deviations of a check that is running, and its beliefs about each answer."""

    number: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    beliefs: dict[str, tuple] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)


class Account:
    """An open account; use it in a ``with`` statement, which makes the schema and drops it.

    :param settings: see :class:`Settings`.
    """

    def __init__(self, settings):
        self.settings = settings
        # The Airflow connection, of its own name for each account.
        self.conn_id = f"mljobs_account_{secrets.token_hex(4)}"
        self.trial = Trial()
        self.refusals = []
        self._undo = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            variable = f"AIRFLOW_CONN_{self.conn_id.upper()}"
            os.environ[variable] = self.settings.airflow_connection
            undo.callback(os.environ.pop, variable, None)
            self.connection = self._log_in()
            undo.callback(self.connection.close)
            self.cursor = self.connection.cursor()
            self._look_around()
            self._make_schema(undo)
            self.client = MLJobClient(self.connect)
            undo.callback(self.client.close)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave jobs behind.
        with _without_interrupts():
            self._undo.close()

    def _log_in(self):
        from snowflake.connector.errors import Error

        try:
            return self.connect()
        except Error as error:
            raise SetupError(f"{CONNECTION} can't log in: {error}") from error

    @property
    def parameters(self):
        """The connector's parameters with which the provider logs in."""
        from airflow_provider_mljobs.hooks import MLJobHook

        return MLJobHook(self.conn_id)._get_conn_params()

    def connect(self, **changes):
        """Open another session, with other parameters than the connection's."""
        from snowflake import connector

        return connector.connect(**{**self.parameters, **changes})

    def _look_around(self):
        answer = ask(self.cursor, _WHO)
        if answer.refusal is not None:
            raise SetupError(f"The connection can't be used: {answer.refusal.text}")
        account, name, organization, user, role, database, warehouse, roles, self.region, self.version = answer.rows[0]
        if database is None:
            raise SetupError("The connection names no database. The suite makes its schema in that of the connection.")
        self.role, self.warehouse, self.database = role, warehouse, Identifier(database)
        settings = self.settings
        self.mask = Mask.of(
            account=[account, name, f"{organization}-{name}"],
            organization=organization,
            user=[user, self.connection.user],
            role=[role, settings.second_role, *json.loads(roles or "[]")],
            database=database,
            warehouse=warehouse,
            pool=settings.pool,
            gpu_pool=settings.gpu_pool,
            integration=settings.eai,
            image=settings.image,
            host=self.connection.host,
        )

    def _make_schema(self, undo):
        name = Identifier(f"MLJOBS_CONTRACT_{secrets.token_hex(4).upper()}")
        self.schema = Namespace(self.database, name)
        self.mask = Mask((("SCHEMA", name.value), *self.mask.names))
        undo.callback(self._drop_schema)
        self._must(f"CREATE SCHEMA {self.schema}")
        self._must(f"CREATE STAGE {self.schema}.PAYLOADS ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
        self.stage = StagePath.parse("@PAYLOADS", "stage", self.schema)

    def _must(self, statement):
        answer = ask(self.cursor, statement)
        if answer.refusal is not None:
            raise SetupError(f"{statement} is refused: {answer.refusal.text}")

    def _drop_schema(self):
        """Drop every job, then the schema; print what is left to do if that is refused."""
        drop = f"DROP SCHEMA IF EXISTS {self.schema} CASCADE"
        try:
            # A new session: that of the checks may be broken, or hours old.
            with self.connect() as session, session.cursor() as cursor:
                services = cursor.execute(f"SHOW SERVICES IN SCHEMA {self.schema}").fetchall()
                names = [self.job(str(Identifier(name))) for name, *_ in services]
                answers = [ask(cursor, statement) for statement in (*map(statements.drop_service, names), drop)]
        except Exception as error:  # noqa: BLE001 (whatever it is, the schema is still there)
            print(f"Still to do by hand: {drop};  -- {error}")
            return
        for answer in answers:
            if answer.refusal is not None:
                print(f"Still to do by hand: {answer.statement};  -- {answer.refusal.text}")

    # What checks ask

    @property
    def pool(self):
        """The compute pool for CPU jobs."""
        return Identifier.parse(self.settings.pool, "pool")

    @property
    def gpu_pool(self):
        """The compute pool with GPUs."""
        return Identifier.parse(self.settings.gpu_pool, "pool")

    def ask(self, step, statement, *beliefs, cursor=None, is_private=False):
        """Run a statement, record its answer, and compare it with the beliefs.

        :param step: the name of the answer in the recording.
        :param is_private: record no rows: they name objects of other people.
        """
        answer = ask(cursor or self.cursor, statement)
        return self._record(step, answer, beliefs, is_private=is_private)

    def put(self, step, text, path):
        """Upload a text as a file of a stage."""
        with tempfile.TemporaryDirectory(prefix="mljobs-") as folder:
            file = Path(folder, path.name)
            file.write_text(text, "utf-8")
            return self.ask(step, statements.put(file, path.parent), succeeds)

    def at_end(self, statement):
        """Run a statement before the schema is dropped."""
        self._undo.callback(lambda: ask(self.cursor, statement))

    def note(self, step, value, *beliefs):
        """Record an observation, and compare it with the beliefs."""
        return self._record(step, Answer.observed(value), beliefs)

    def note_refusals(self, step):
        """Record all errors of the run so far as one table."""
        columns = tuple(map(Column, ("check", "step", "errno", "sqlstate", "text")))
        return self._record(step, Answer(columns=columns, rows=tuple(self.refusals), count=len(self.refusals)), ())

    def _record(self, step, answer, beliefs, *, is_private=False):
        if step in self.trial.answers:
            raise ValueError(f"A check records {step!r} twice")
        if answer.refusal is not None:
            refusal = answer.refusal
            self.refusals.append((self.trial.number, step, refusal.errno, refusal.sqlstate, refusal.text))
        self.trial.answers[step] = answer.without_rows() if is_private else answer
        self.trial.beliefs[step] = beliefs
        for belief in beliefs:
            if deviation := belief(answer):
                self.trial.deviations.append(f"{step}: {deviation}")
                break
        return answer

    # Jobs of checks

    def job(self, name):
        """Return the full name of a job in the schema of the suite."""
        return QualifiedName.parse(name, "job", self.schema)

    @cached_property
    def runtime(self):
        """The image and the resources of the CPU pool's nodes, as the provider resolves them."""
        return self.client.runtimes.of(self.spec("ANY"))

    @cached_property
    def image(self):
        """The ML runtime image of the CPU pool."""
        return self.runtime.image

    def run(self, name, function, *, requirements=(), **fields):
        """Run a function as the provider does; returns its value, or the error of the job as text."""
        spec = self.spec(name, **fields)
        payload = Payload.of_function(function, pip_requirements=requirements)
        directory = self.client.upload(spec, payload)
        place = self.client.submit(spec, directory, Arguments.of_script(()), payload.copies)
        status = self.wait(spec.name)
        result = read_result(self.client.connection, place, patience=self.client.visibility_lag)
        if result is not None and result.success:
            return result.value
        return f"{status}: {self.log(spec.name)[-1_000:]}"

    def spec(self, name, **fields):
        """Describe a job."""
        return JobSpec(**{"name": self.job(name), "compute_pool": self.pool, "stage": self.stage, **fields})

    def container(self, script, **fields):
        """Describe a small container that runs a shell script on the image's own system."""
        resources = {"requests": SMALL, "limits": SMALL}
        return {
            "name": "main",
            "image": self.image,
            "command": ["/bin/sh", "-c", script],
            "resources": resources,
        } | fields

    def start_statement(self, name, *containers, spec=None, **fields):
        """Return the statement that starts a job of containers.

        :param spec: further parts of the specification.
        :param fields: those of :class:`~airflow_provider_mljobs.jobs.spec.job.JobSpec`.
        """
        text = render({"spec": {"containers": list(containers), **(spec or {})}})
        return statements.execute_job_service(self.spec(name, **fields), SpecificationSource(text=text))

    def start(self, name, script, **fields):
        """Start a small job that runs a shell script; returns its name."""
        answer = ask(self.cursor, self.start_statement(name, self.container(script), **fields))
        if answer.refusal is not None:
            raise RefusedError(f"Job {name} could not be started: {answer.refusal.text}")
        return self.job(name)

    def wait(self, job, *statuses, seconds=None):
        """Wait until a job has one of the statuses, by default until it has ended; returns its last status.

        A job that isn't shown for a while isn't waited for: its start may have been refused.
        """
        wanted = set(statuses) | TERMINAL
        began, last = time.monotonic(), None
        while True:
            answer = ask(self.cursor, statements.describe_service(job))
            last = answer.cells("status")[0] if answer.refusal is None else last
            passed = time.monotonic() - began
            is_missing = last is None and passed > self.settings.fit_seconds
            if last in wanted or is_missing or passed > (seconds or self.settings.start_seconds):
                return last
            time.sleep(self.settings.pause)

    def repeat(self, statement, is_enough, seconds, cursor=None):
        """Ask until an answer is enough, or the time is up; returns the last answer and the seconds."""
        began = time.monotonic()
        while True:
            answer = ask(cursor or self.cursor, statement)
            passed = time.monotonic() - began
            if is_enough(answer) or passed > seconds:
                return answer, passed
            time.sleep(self.settings.pause)

    def wait_until_gone(self, job):
        """Wait until a dropped job isn't shown any more; returns the seconds that it took."""
        statement = statements.describe_service(job)
        _, seconds = self.repeat(statement, lambda answer: answer.refusal is not None, self.settings.fit_seconds)
        return seconds

    def log(self, job, instance=0, container="main"):
        """Return the text of a container's log; the refusal's if there is none."""
        answer = ask(self.cursor, statements.get_service_logs(job, instance, container))
        return str(answer.value) if answer.refusal is None else f"refused: {answer.refusal.text}"


class RefusedError(Exception):
    """Raised when a job that a check needs can't be started."""


@contextlib.contextmanager
def _without_interrupts():
    """Ignore Ctrl-C in the main thread until the schema is dropped."""
    try:
        earlier = signal.signal(signal.SIGINT, lambda *_: print("Dropping the schema of the suite; please wait."))
    except ValueError:
        # Only the main thread gets signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
