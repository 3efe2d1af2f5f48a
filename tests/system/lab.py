"""An Airflow of its own for the tests of this folder: a database, and triggerers that are processes."""

import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import psutil

from tests.budget import budget, wait_until

DAG = "restarts"
TASKS = 12
RUN = "run"
_DAG_FILE = f"""
from airflow.sdk import DAG
from airflow_provider_mljobs.operators import MLJobOperator

with DAG("{DAG}", schedule=None):
    for number in range({TASKS}):
        MLJobOperator(task_id=f"task_{{number}}", source=__file__, compute_pool="ML_POOL", stage_name="@ML_PAYLOADS")
"""
# Airflow runs this in each of its processes; on SIGUSR1 they write the stacks of all threads.
_LOCAL_SETTINGS = """
import faulthandler
import signal

faulthandler.register(signal.SIGUSR1, file=open("{stacks}", "a", buffering=1), all_threads=True)
"""
# Prints until the test closes its side of the connection, then sends the number of printed lines. For each byte from
# the test it prints 60 KB at once.
_JOB = """
import os
import select
import socket
import sys
import time

test = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
number = 0
print("password", os.environ["DB_PASSWORD"])


def show(padding=""):
    global number
    number += 1
    print(f"line {number} at {time.time():.3f}{padding}", flush=True)


while True:
    show()
    if select.select([test], [], [], 0.05)[0]:
        if not test.recv(1):
            break
        for _ in range(500):
            show(" " + 90 * "x")
test.sendall(str(number).encode())
"""
_SPEC = """
spec:
  containers:
  - name: main
    image: /snowflake/images/snowflake_images/x:1
    command: {command}
    env: {{DB_PASSWORD: {password}}}
"""
PASSWORD = "correct-horse-battery"
_LINE = re.compile(r"^line (\d+) at ([\d.]+)(?: x+)?$", re.MULTILINE)
_HERE = "127.0.0.1"


class Installation:
    """An Airflow without a scheduler; its only DAG run has tasks for tests to defer.

    :param home: an empty directory.
    :param snowflake: the embedded Snowflake that ``snowflake_default`` points to.
    """

    def __init__(self, home, snowflake):
        self.home = home
        self.snowflake = snowflake
        self.triggerers = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            **snowflake.environment,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
        }
        for folder in ("dags", "config"):
            (home / folder).mkdir()
        (home / "dags" / "dag.py").write_text(_DAG_FILE)
        (home / "config" / "airflow_local_settings.py").write_text(_LOCAL_SETTINGS.format(stacks=home / "stacks"))
        self._cli("db", "migrate")
        self._cli("dags", "reserialize")
        self._cli("dags", "trigger", DAG, "--run-id", RUN)

    def _cli(self, *arguments):
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(command, cwd=self.home, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def query(self, statement, *values):
        """Run a statement on the metadata database."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=budget())) as database, database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(statement, values)]

    def triggerer(self):
        """Start a triggerer."""
        self.triggerers.append(Triggerer(self))
        return self.triggerers[-1]

    def task(self, number):
        """Return a task of the run, with its own job."""
        return Task(self, f"task_{number}")


class Triggerer:
    """The two processes of ``airflow triggerer``: a supervisor, and its child that runs the triggers.

    :param installation: whose triggerer it is.
    """

    def __init__(self, installation):
        self._installation = installation
        before = self._jobs()
        self.output = installation.home / f"triggerer_{len(before)}.txt"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"],
                cwd=installation.home,
                env=installation.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.id = wait_until(lambda: self._jobs() - before).pop()
            (self.runner,) = wait_until(psutil.Process(self._process.pid).children)
        except BaseException:
            self.send(signal.SIGKILL)
            raise

    def _jobs(self):
        return {row["id"] for row in self._installation.query("SELECT id FROM job WHERE job_type = 'TriggererJob'")}

    @property
    def is_alive(self):
        """Whether both processes are alive."""
        return self._process.poll() is None and self.runner.status() != psutil.STATUS_ZOMBIE

    @property
    def connections(self):
        """The number of connections from its runner to the embedded Snowflake."""
        port = self._installation.snowflake.port
        return sum(
            connection.raddr == (_HERE, port) and connection.status == psutil.CONN_ESTABLISHED
            for connection in self.runner.net_connections("tcp")
        )

    @property
    def stacks(self):
        """The stacks of all threads of its runner."""
        file = self._installation.home / "stacks"
        start = file.stat().st_size
        self.runner.send_signal(signal.SIGUSR1)

        def text():
            dump = file.read_text()[start:]
            # The dump is complete when the event loop's thread is there: it comes last, its first frame at the end.
            return dump if dump.rstrip().endswith("in _run_module_as_main") else ""

        return wait_until(text)

    def send(self, number):
        """Send a signal to both processes."""
        os.killpg(self._process.pid, number)

    def terminate(self):
        """Send SIGTERM to the supervisor, as a service manager does. Airflow takes ten seconds to end."""
        self._process.terminate()

    def kill(self):
        """Send SIGKILL to both processes, unless they have ended."""
        if self._process.poll() is None:
            self.send(signal.SIGKILL)
        self._process.wait(budget())
        self.runner.wait(budget())


class Task:
    """A deferred task whose job prints a line every 0.05 s until the test ends it.

    :param installation: whose task it is.
    :param task_id: its name.
    """

    def __init__(self, installation, task_id):
        self._installation = installation
        self._id = task_id
        self.job = f"MLJOBS_DB.PUBLIC.SYSTEM_{task_id.upper()}"
        self._listener = socket.create_server((_HERE, 0))
        self._listener.settimeout(budget())
        command = ["python", "-c", _JOB, str(self._listener.getsockname()[1])]
        self.ask(
            f"EXECUTE JOB SERVICE IN COMPUTE POOL ML_POOL NAME = {self.job} ASYNC = TRUE "
            f"FROM SPECIFICATION $${_SPEC.format(command=json.dumps(command), password=PASSWORD)}$$"
        )
        self._job, _ = self._listener.accept()
        self._defer()

    def _defer(self):
        """Write the rows that the execution API writes when a worker defers its task."""
        from airflow_provider_mljobs.triggers import MLJobTrigger

        path, kwargs = MLJobTrigger(self.job, "snowflake_default", poll_interval=1, log_interval=1).serialize()
        query = self._installation.query
        query(
            "INSERT INTO trigger (classpath, kwargs, created_date) VALUES (?, ?, CURRENT_TIMESTAMP)",
            path,
            json.dumps(kwargs),
        )
        query(
            "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp) "
            "SELECT id, dag_id, run_id, ?, -1, 'job_id', ?, CURRENT_TIMESTAMP FROM dag_run",
            self._id,
            json.dumps(self.job),
        )
        query(
            "UPDATE task_instance SET state = 'deferred', try_number = 1, next_method = 'execute_complete', "
            "next_kwargs = '{}', trigger_id = (SELECT max(id) FROM trigger) WHERE task_id = ?",
            self._id,
        )

    def ask(self, statement):
        """Run a statement on the embedded Snowflake."""
        from snowflake import connector

        with connector.connect(**self._installation.snowflake.connection_kwargs) as connection:
            return connection.cursor(connector.DictCursor).execute(statement).fetchall()

    @property
    def state(self):
        """The state of the task."""
        (row,) = self._installation.query("SELECT state FROM task_instance WHERE task_id = ?", self._id)
        return row["state"]

    @property
    def watched_by(self):
        """The triggerer that the trigger is assigned to."""
        rows = self._installation.query(
            "SELECT triggerer_id FROM trigger JOIN task_instance ON trigger.id = trigger_id WHERE task_id = ?", self._id
        )
        return rows[0]["triggerer_id"] if rows else None

    @property
    def watched(self):
        """The progress of the watch, as a triggerer stores it for its successor."""
        rows = self._installation.query("SELECT value FROM xcom WHERE key = 'mljob_watched' AND task_id = ?", self._id)
        return json.loads(rows[0]["value"]) if rows else None

    @property
    def event(self):
        """The event that resumes the task."""
        (row,) = self._installation.query(
            "SELECT next_method, next_kwargs FROM task_instance WHERE task_id = ?", self._id
        )
        assert "execute_complete" == row["next_method"]
        return json.loads(row["next_kwargs"])["event"]

    def log(self, triggerer):
        """Return the texts of the records that a triggerer wrote to the task's log."""
        name = f"attempt=1.log.trigger.{triggerer.id}.log"
        files = self._installation.home.glob(f"logs/**/task_id={self._id}/{name}")
        # The last line may be incomplete.
        lines = [line for file in files for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [json.loads(line)["event"] for line in lines]

    def lines(self, triggerer):
        """Return number and time of each line of the job in a triggerer's log, in order."""
        lines = _LINE.findall("\n".join(self.log(triggerer)))
        return [(int(number), float(moment)) for number, moment in lines]

    def await_lines(self, triggerer, count=20):
        """Wait until a triggerer has logged some lines and stored its progress."""
        wait_until(lambda: len(self.lines(triggerer)) >= count and self.watched and self.watched["cursors"])

    def print_much(self):
        """Let the job print 60 KB at once."""
        self._job.sendall(b".")

    def finish(self):
        """Let the job end, wait until the task is resumed, and return the number of lines that the job printed."""
        self._job.shutdown(socket.SHUT_WR)
        printed = int(self._job.recv(100))
        wait_until(lambda: self.state == "scheduled")
        return printed

    @property
    def is_started_again(self):
        """Whether the job has started a second time."""
        return bool(select.select([self._listener], [], [], 0)[0])

    @property
    def interventions(self):
        """The statements that end, stop or drop the job."""
        return self._installation.snowflake.statements.matching(f"(CANCEL|DROP|STOP|SUSPEND).*{self.job}")

    def close(self):
        """Drop the job, and close the connection to it."""
        self.ask(f"DROP SERVICE IF EXISTS {self.job}")
        self._job.close()
        self._listener.close()
