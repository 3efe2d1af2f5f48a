"""Uses Snowflake's own client as its users do; runs in an environment with snowflake-ml-python.

Takes the connection as JSON on standard input, and prints its observations as a JSON object.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from snowflake.ml.jobs import delete_job, get_job, list_jobs, remote, submit_directory, submit_file
from snowflake.snowpark import Session

POOL, STAGE = "ML_POOL", "ML_CLIENT"
# Seconds after which a wait hangs, on any machine.
PATIENCE = 600
seen = {}


def check_file(folder):
    """Submit a file; wait, logs, result, status, and the job in the list and by its id."""
    path = Path(folder, "train.py")
    path.write_text("import sys\nprint('training with', sys.argv[1:])\n__return__ = {'args': sys.argv[1:]}\n")
    job = submit_file(str(path), POOL, stage_name=STAGE, args=["--lr", "0.1"], session=session)
    seen["file"] = {
        "wait": job.wait(timeout=PATIENCE),
        "result": job.result(),
        "logs": job.get_logs(),
        "status": get_job(job.id, session=session).status,
        "listed": job.name in list(list_jobs(session=session)["name"]),
    }
    delete_job(job, session=session)
    seen["deleted"] = {
        "listed": job.name in list(list_jobs(session=session)["name"]),
        "files": [row["name"] for row in session.sql(f"LIST @{STAGE}").collect() if job.name.lower() in row["name"]],
    }


def check_directory(folder):
    """Submit a directory with an entrypoint that imports a neighbour."""
    source = Path(folder, "src")
    (source / "pkg").mkdir(parents=True)
    (source / "pkg" / "__init__.py").write_text("NUMBER = 7\n")
    (source / "main.py").write_text("from pkg import NUMBER\n__return__ = NUMBER * 6\n")
    job = submit_directory(str(source), POOL, entrypoint="main.py", stage_name=STAGE, session=session)
    seen["directory"] = job.result()


def check_instances(folder):
    """Run a file on two instances: with Ray it reaches both by the image's tags, without Ray the head does the work."""
    path = Path(folder, "spread.py")
    path.write_text(
        "try:\n"
        "    import ray\n"
        "except ImportError:\n"
        "    __return__ = 1\n"
        "else:\n"
        "    @ray.remote\n"
        "    def node():\n"
        "        return ray.get_runtime_context().get_node_id()\n"
        "    tags = ['node_tag:head', 'node_tag:worker']\n"
        "    nodes = ray.get([node.options(resources={tag: 0.01}).remote() for tag in tags])\n"
        "    __return__ = len(set(nodes))\n"
    )
    job = submit_file(str(path), POOL, stage_name=STAGE, target_instances=2, session=session)
    seen["instances"] = {
        "wait": job.wait(timeout=PATIENCE),
        "nodes": job.result(),
        "target": job.target_instances,
        "worker": job.get_logs(instance_id=1, verbose=True),
        "has_ray": importlib.util.find_spec("ray") is not None,
    }


def check_remote():
    """Run decorated functions: a value, a DataFrame, the session, an exception."""

    @remote(POOL, stage_name=STAGE, session=session)
    def add(a, b=1):
        return a + b

    @remote(POOL, stage_name=STAGE, session=session)
    def frame(rows):
        return pd.DataFrame({"a": range(rows)})

    @remote(POOL, stage_name=STAGE, session=session)
    def fail():
        message = "on purpose"
        raise ValueError(message)

    first, second, table, failed = add(1), add(2, b=40), frame(3), fail()
    seen["remote"] = [first.result(), second.result()]
    seen["frame"] = table.result()["a"].tolist()
    seen["ids"] = {"value": second.id, "frame": table.id, "error": failed.id}
    try:
        failed.result()
    except Exception as error:  # noqa: BLE001 (the test checks which one it is)
        seen["error"] = [str(error), failed.status]


def check_cancel(folder):
    """Cancel a running job."""
    path = Path(folder, "sleep.py")
    path.write_text("import time\ntime.sleep(60)\n")
    job = submit_file(str(path), POOL, stage_name=STAGE, session=session)
    job.cancel()
    seen["cancelled"] = job.wait(timeout=PATIENCE)


def read_ours(job_id):
    """Read the result of a job of another client."""
    job = get_job(job_id, session=session)
    try:
        result = job.result()
    except Exception as error:  # noqa: BLE001 (the test checks which one it is)
        result = [type(error).__name__, str(error)]
    if isinstance(result, pd.DataFrame):
        result = result.to_dict("list")
    elif isinstance(result, np.ndarray):
        result = result.tolist()
    return {"result": result, "logs": job.get_logs(), "status": job.status}


connection, ours = json.load(sys.stdin), sys.argv[1:]
session = Session.builder.configs(connection).create()
if ours:
    print(json.dumps([read_ours(job_id) for job_id in ours]))
    sys.exit()
session.sql(f"CREATE STAGE IF NOT EXISTS {STAGE} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')").collect()
with tempfile.TemporaryDirectory() as folder:
    check_file(folder)
    check_directory(folder)
    check_cancel(folder)
    check_instances(folder)
check_remote()
print(json.dumps(seen))
