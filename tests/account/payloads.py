"""Functions that checks run in a job. Each stands alone, so that it travels as source and any Python can run it."""


def greeting():
    """Print a line and return a text."""
    print("printed")
    return "hello"


def one():
    """Return one."""
    return 1


def with_probe():
    """Return the version of the package that the job has installed."""
    import mljobs_contract_probe

    return mljobs_contract_probe.VERSION


def pypi_version():
    """Return the version of a package from PyPI."""
    from importlib.metadata import version

    return version("iniconfig")


def programs():
    """Return the programs and packages of the image."""
    import importlib.util
    import os
    import shutil
    import sys
    import sysconfig
    from pathlib import Path

    def has(name):
        try:
            return importlib.util.find_spec(name) is not None
        except ImportError:
            return False

    packages = (
        "cloudpickle",
        "numpy",
        "pandas",
        "pip",
        "pyarrow",
        "ray",
        "snowflake.ml",
        "snowflake.snowpark",
        "torch",
    )
    return {
        "version": sys.version.split()[0],
        "executable": sys.executable,
        "programs": {name: shutil.which(name) for name in ("python", "python3", "pip", "uv", "git", "bash", "ray")},
        "packages": {name: has(name) for name in packages},
        "variables": {name: os.environ.get(name) for name in ("VIRTUAL_ENV", "PYTHONPATH")},
        "externally_managed": Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists(),
        "opt": sorted(map(str, Path("/opt").glob("*")))[:20],
    }


def files():
    """Return the file operations that work on the volume of the result, and on that of the payload."""
    import os
    from pathlib import Path

    result, payload = Path(os.environ["MLRS_STAGE_RESULT_PATH"]), Path(os.environ["MLRS_STAGE_MOUNT_PATH"])

    def tried(action):
        try:
            return action()
        except OSError as error:
            return f"{type(error).__name__}: {error.strerror}"

    def write(name, mode="w"):
        path = result / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write("x")
        return path.read_text()

    def at_random():
        with (result / "a.txt").open("r+b") as file:
            file.seek(0)
            file.write(b"y")
        return (result / "a.txt").read_text()

    return {
        "user": os.getuid(),
        "groups": len(os.getgroups()),
        "umask": os.umask(0o022),
        "read": tried(lambda: any(payload.glob("payload*/payload.pyz")) or (payload / "payload.pyz").exists()),
        "write": tried(lambda: write("a.txt")),
        "mkdir": tried(lambda: write("new/directory/b.txt")),
        "append": tried(lambda: write("a.txt", "a")),
        "at_random": tried(at_random),
        "rename": tried(lambda: (result / "a.txt").rename(result / "c.txt").name),
    }


def limits():
    """Return the limits of the container: shared memory in MiB, and memory and CPU of its control group."""
    import os
    from pathlib import Path

    def text(path):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            return type(error).__name__

    disk = os.statvfs("/dev/shm")
    return {
        "shared_memory": disk.f_blocks * disk.f_frsize // 2**20,
        "memory": text("/sys/fs/cgroup/memory.max"),
        "cpu": text("/sys/fs/cgroup/cpu.max"),
        "cores": os.cpu_count(),
    }


def distributed():
    """Return the parts of the ML runtime that need Ray, and whether they work on one instance."""

    def tried(action):
        try:
            return action()
        except Exception as error:  # noqa: BLE001 (its kind is the observation)
            return f"{type(error).__name__}: {str(error)[:200]}"

    def cluster():
        import ray

        ray.init(address="auto", ignore_reinit_error=True)
        return len(ray.nodes())

    def connector():
        from snowflake.ml.data.data_connector import DataConnector

        return DataConnector.__name__

    def distributor():
        from snowflake.ml.modeling.distributors.xgboost import XGBEstimator

        return XGBEstimator.__name__

    return {"ray": tried(cluster), "connector": tried(connector), "distributor": tried(distributor)}


def job_session(session):
    """Return facts about the session of the job: never the token itself."""
    import json
    import os
    from pathlib import Path

    row = session.sql(
        "SELECT CURRENT_DATABASE() AS D, CURRENT_SCHEMA() AS S, CURRENT_ROLE() AS R, CURRENT_WAREHOUSE() AS W"
    ).collect()[0]
    tag = session.sql("SHOW PARAMETERS LIKE 'QUERY_TAG' IN SESSION").collect()[0]["value"]
    token = Path("/snowflake/session/token")
    return {
        "token": token.exists() and len(token.read_text()) > 0,
        "variables": sorted(name for name in os.environ if name.startswith("SNOWFLAKE_")),
        "database": row["D"],
        "schema": row["S"],
        "role": row["R"],
        "warehouse": row["W"],
        "query_tag": json.loads(tag),
    }


def after_seventy_minutes(session):
    """Return whether a session and the token of the job work after 70 minutes."""
    import time

    from snowflake.snowpark import Session

    time.sleep(70 * 60)
    return [
        session.sql("SELECT 1 AS A").collect()[0]["A"],
        Session.builder.getOrCreate().sql("SELECT 2 AS A").collect()[0]["A"],
    ]


def gpus():
    """Return the number of GPUs that the job sees."""
    import shutil
    import subprocess

    if shutil.which("nvidia-smi") is None:
        return "no nvidia-smi"
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return len(listed.stdout.splitlines())


def cluster_nodes():
    """Return the number of nodes of the job's Ray cluster, once all have joined."""
    import os

    import ray

    ray.init(address="auto", ignore_reinit_error=True)
    return [len(ray.nodes()), os.environ.get("SNOWFLAKE_JOBS_COUNT"), os.environ.get("SNOWFLAKE_JOB_INDEX")]


def rank():
    """Return the index of the instance."""
    import os

    return int(os.environ["SNOWFLAKE_JOB_INDEX"])
