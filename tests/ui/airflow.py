"""A real Airflow with jobs under a test's control: ``python -m tests.ui.airflow``.

As a program it serves until it is interrupted, and lets every job train for a minute.
"""

import argparse
import json
import math
import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.budget import budget, wait_until
from tests.lab import served
from tests.system.real_airflow import AirflowProcesses, postgres

DAGS = Path(__file__).with_name("dags")
DAG_IDS = ("churn", "cluster", "plain", "regions")
# Their passwords are their names.
USERS = {"admin": "ADMIN", "user": "USER", "viewer": "VIEWER"}
_SETTINGS = {
    "CORE__PARALLELISM": "4",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
    "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
    # By its URL it would be another one below a path.
    "MLJOBS__DEPLOYMENT": "ui",
}


class Job:
    """One instance of a job, under the test's control.

    :param connection: its connection to us.
    """

    def __init__(self, connection):
        self._connection = connection

    def _tell(self, what, *arguments, **options):
        self._connection.sendall(json.dumps([what, arguments, options]).encode() + b"\n")

    def progress(self, fraction, message=""):
        """Report progress."""
        self._tell("progress", fraction, message)

    def metrics(self, step=None, **values):
        """Report metrics."""
        self._tell("metrics", step=step, **values)

    def print(self, text):
        """Print a line."""
        self._tell("print", text)

    def finish(self, value=None):
        """Return a result."""
        self._tell("end", value)
        self.close()

    def fail(self, message):
        """Raise an error."""
        self._tell("fail", message)
        self.close()

    def close(self):
        """Close the connection."""
        self._connection.close()


class Jobs:
    """The server to which jobs connect for instructions."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._arrived = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection.makefile() as lines:
                    run_id, map_index, instance = json.loads(lines.readline())
                with self._changed:
                    self._arrived[run_id, map_index, instance] = Job(connection)
                    self._changed.notify_all()

    def take(self, run_id=None, map_index=-1, instance=0):
        """Wait for a job, and return it.

        :param run_id: of its DAG run; ``None`` for the next that comes, however long that takes.
        """
        wanted = (run_id, map_index, instance)
        with self._changed:
            if run_id is None:
                assert self._changed.wait_for(lambda: self._arrived)
                return self._arrived.pop(next(iter(self._arrived)))
            assert self._changed.wait_for(lambda: wanted in self._arrived, budget()), f"No job of {wanted}"
            return self._arrived.pop(wanted)

    def close(self):
        """Stop listening."""
        # Closed only, it would leave the thread that waits for it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for job in self._arrived.values():
            job.close()


class ShownAirflow(AirflowProcesses):
    """An Airflow with the DAGs of this folder, and users of three roles.

    :param home: an empty directory.
    :param snowflake: the embedded Snowflake that ``snowflake_default`` points to.
    :param database: the directory of a Postgres' socket.
    """

    def __init__(self, home, snowflake, database):
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({name: name for name in USERS}))
        settings = _SETTINGS | {"CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords)}
        super().__init__(home, snowflake, database, settings)
        self.jobs = Jobs()
        self.environment |= {"JOBS_PORT": str(self.jobs.port)}
        for file in DAGS.glob("*.py"):
            shutil.copy(file, self.dags)

    def token(self, user="admin"):
        """Log in as one of the users."""
        answer = self._client.post("/auth/token", json={"username": user, "password": user})
        return answer.raise_for_status().json()["access_token"]

    def trigger(self, dag_id, run_id):
        """Start a run of a DAG."""
        self.api("POST", f"dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None})

    def task(self, dag_id, run_id, task_id="train", map_index=-1):
        """Return a task instance from Airflow's API."""
        mapped = "" if map_index < 0 else f"/{map_index}"
        return self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}{mapped}")

    def await_state(self, state, dag_id, run_id, task_id="train", map_index=-1):
        """Wait until a task instance is in a state."""
        wait_until(lambda: self.task(dag_id, run_id, task_id, map_index)["state"] == state, pause=0.5)

    def is_idle(self):
        """Whether no task of these DAGs is scheduled or running."""
        of_ours = f"dag_id IN {DAG_IDS}"
        return not self.query(f"SELECT FROM task_instance WHERE {of_ours} AND state NOT IN ('success', 'failed')")

    def remember(self, jobs, now=None):
        """Fill the database with jobs that seem to have run; see :func:`tests.ui.seeds.fill`."""
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session

        from tests.ui import seeds

        engine = create_engine(self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        with Session(engine) as session:
            seeds.fill(session, jobs, now=now)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # As in a database that has been there for longer than a second.
            connection.exec_driver_sql("ANALYZE")
        engine.dispose()

    def stop(self):
        """Kill everything that was started."""
        super().stop()
        self.jobs.close()


@contextmanager
def shown():
    """Serve a :class:`ShownAirflow` with a Snowflake and a database of its own."""
    with served() as snowflake, postgres() as database, tempfile.TemporaryDirectory(prefix="mljobs-ui-") as home:
        airflow = ShownAirflow(Path(home), snowflake, database)
        try:
            airflow.start(len(DAG_IDS))
            yield airflow
        finally:
            airflow.stop()


def learn(job, epoch, epochs):
    """Run one epoch of a training."""
    loss = math.exp(-epoch / 8) + 0.02 * math.sin(5 * epoch)
    job.print(f"epoch {epoch}/{epochs}: loss {loss:.4f}")
    job.metrics(step=epoch, loss=loss, auc=0.93 - loss / 3)
    job.progress(epoch / epochs, f"epoch {epoch}/{epochs}")


def _train(job, epochs=30):
    """Train for a minute."""
    # The user may cancel it.
    with suppress(OSError):
        for epoch in range(1, epochs + 1):
            learn(job, epoch, epochs)
            time.sleep(2)
        job.finish({"auc": 0.93})


def main():
    """Serve an Airflow with a run of each DAG until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--below", metavar="PATH", help="serve it below a path of the host, e.g. /team/airflow")
    parser.add_argument("--url-file", type=Path, help="where to write the URL")
    arguments = parser.parse_args()
    # It would look for cloud metadata servers, which takes seconds where there are none.
    os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"
    with shown() as airflow:
        url = airflow.serve_below(arguments.below) if arguments.below else airflow.url
        print(f"{url} — users (and passwords): {', '.join(USERS)}; files in {airflow.home}", flush=True)
        if arguments.url_file:
            arguments.url_file.write_text(url + "\n")
        for dag_id in DAG_IDS:
            airflow.trigger(dag_id, "first")
        with suppress(KeyboardInterrupt):
            while True:
                job = airflow.jobs.take()
                threading.Thread(target=_train, args=(job,), daemon=True).start()


if __name__ == "__main__":
    main()
