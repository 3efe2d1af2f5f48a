import json

import pytest

from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.outcome.results import InstanceResult, JobResult
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.values.arguments import Arguments

STAGE = QualifiedName(Identifier("DB"), Identifier("ML"), Identifier("PAYLOADS"))
OUTPUT = StagePath(STAGE, "payload_1/JOB/output")


@pytest.fixture
def instance(run, script):
    """Run a script, or the given payload, as one instance of a parallel job of three."""

    def instance(index, payload, arguments=None, **environment):
        if isinstance(payload, str):
            payload = Payload.of_source(script(payload), None)
        parallel = {"SNOWFLAKE_JOBS_COUNT": "3", "SNOWFLAKE_JOB_INDEX": str(index), "MLJOBS_PARALLEL": "1"}
        return run(payload, arguments, **parallel | environment)

    return instance


def record(ended, index):
    """Return the record of an instance."""
    return json.loads((ended.stage / "output" / "instances" / f"{index}.json").read_text())


def written(ended):
    """Return the names of the files that the launcher wrote."""
    root = ended.stage / "output"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_job_of_one_has_no_records(run, script):
    """A job of one instance has a result only."""
    assert ["mljob_result"] == written(run(Payload.of_source(script("__return__ = 1"), None)))


def test_the_heads_value_is_the_jobs(instance):
    """The result of the job is the value of instance 0, as for Snowflake's client; its record has it as well."""
    ended = instance(0, "import os\n__return__ = os.environ['SNOWFLAKE_JOB_INDEX']")
    entry = record(ended, 0)

    assert ["instances/0.json", "mljob_result"] == written(ended)
    assert "0" == ended.record["value"]
    assert (0, None, "0") == (entry["exit_code"], entry["exc"], entry["value"])
    assert 0 == entry["metadata"]["instance"]


def test_the_others_have_results_of_their_own(instance):
    """Each instance has a result in the format of the job's, for the same readers."""
    ended = instance(2, "import os\n__return__ = {'index': os.environ['SNOWFLAKE_JOB_INDEX']}")
    entry = InstanceResult.parse(2, json.dumps(record(ended, 2)))
    value = JobResult.parse(json.dumps(record(ended, 2)), OUTPUT / "instances/2").value

    assert ["instances/2.json", "instances/2/mljob_result"] == written(ended)
    assert (2, 0, None) == (entry.instance, entry.exit_code, entry.failure)
    assert {"index": "2"} == value


def frame(rows):
    """Return a DataFrame."""
    import pandas as pd

    return pd.DataFrame({"a": range(rows)})


@pytest.mark.parametrize(
    ("function", "expected", "protocol"),
    [(frame, "mljob_extra_0.parquet", "pandas"), ("x".ljust, "mljob_result", "json")],
    ids=["no JSON", "large"],
)
def test_values_that_fit_into_no_record(instance, function, expected, protocol):
    """Values that are no JSON are saved in a directory of their instance."""
    size = 300_000
    ended = instance(1, Payload.of_function(function), Arguments.of_function(function, (size,), {}))
    result = JobResult.parse(json.dumps(record(ended, 1)), OUTPUT / "instances/1")

    assert (protocol, (f"{OUTPUT}/instances/1/{expected}",)) == (
        result.reference.protocol,
        result.reference.stage_paths,
    )
    assert f"instances/1/{expected}" in written(ended)


@pytest.mark.parametrize("index", [0, 1])
def test_an_instance_that_fails(instance, index):
    """The log of a failed instance has the traceback; its record rebuilds the exception for Snowflake's client."""
    ended = instance(index, "raise ValueError('no shard')")
    entry = record(ended, index)
    failure = InstanceResult.parse(index, json.dumps(entry)).failure

    assert 1 == ended.code == entry["exit_code"]
    assert "ValueError: no shard" in ended.errors
    assert ("builtins.ValueError", "no shard", "ValueError('no shard')") == tuple(
        entry["exc"][key] for key in ("type", "message", "repr")
    )
    assert "line 1, in <module>" in entry["exc"]["traceback"]
    assert (index, "builtins.ValueError", "no shard") == (failure.instance, failure.remote_type, failure.message)


def test_exit_codes(instance):
    """The record of an instance has the exit code of its container."""
    ended = instance(1, "import sys\nsys.exit(7)")

    assert 7 == ended.code == record(ended, 1)["exit_code"]


# The platform stops the other instances when one fails.
STOP = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"


@pytest.mark.parametrize("index", [0, 1])
def test_an_instance_that_is_stopped(instance, index):
    """A stopped instance prints a line, lets the payload clean up, and records neither error nor result."""
    ended = instance(index, "try:\n    " + STOP.replace("\n", "\n    ") + "\nfinally:\n    print('cleaned up')")

    assert 143 == ended.code
    assert {"exit_code": 143, "exc": None} == {key: record(ended, index)[key] for key in ("exit_code", "exc")}
    assert [f"instances/{index}.json"] == written(ended)
    assert ended.output.endswith("cleaned up\n")
    assert f"Instance {index} of 3 was stopped.\n" in ended.errors


def test_a_stop_is_a_stop(instance):
    """A stopped instance ends as stopped even if the payload handles the exception."""
    ended = instance(1, "try:\n    {}\n    {}\nexcept BaseException:\n    __return__ = 1".format(*STOP.splitlines()))

    assert (143, 143) == (ended.code, record(ended, 1)["exit_code"])
    assert ["instances/1.json"] == written(ended)


@pytest.mark.parametrize(("module", "code"), [("ray.worker", 143), ("rays", 1)], ids=["Ray's", "the payload's"])
def test_a_stop_by_ray(run, script, module, code):
    """A process that is connected to Ray records a stop as well: Ray's handler ends it with another exit code."""
    script("import sys\n\ndef end(number, frame):\n    sys.exit(1)\n", f"{module.replace('.', '/')}.py")
    # Hides the package if it is installed.
    script("", "ray/__init__.py")
    job = script(f"import signal\nfrom {module} import end\nsignal.signal(signal.SIGTERM, end)\n{STOP}")
    ended = run(Payload.of_source(job.parent, "job.py"), MLJOBS_PARALLEL="1")

    assert code == ended.code == record(ended, 0)["exit_code"]


def test_a_payload_may_stop_its_own_processes(instance):
    """Stopping a forked child of the payload is no stop of the instance."""
    ended = instance(
        1,
        "import multiprocessing, time\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "child.start()\n"
        "child.terminate()\n"
        "child.join()\n"
        "__return__ = child.exitcode",
    )

    assert (0, -15) == (record(ended, 1)["exit_code"], record(ended, 1)["value"])


def test_a_parallel_job_of_one(run, script):
    """A parallel job of one instance has the record that readers of parallel jobs look for."""
    ended = run(Payload.of_source(script("__return__ = 1"), None), MLJOBS_PARALLEL="1")

    assert (0, 1) == (record(ended, 0)["exit_code"], ended.record["value"])


def test_a_function_on_every_instance(instance):
    """A function on every instance reads its number from the environment."""

    def shard(rows):
        import os

        return rows[int(os.environ["SNOWFLAKE_JOB_INDEX"]) :: int(os.environ["SNOWFLAKE_JOBS_COUNT"])]

    ended = instance(1, Payload.of_function(shard), Arguments.of_function(shard, ([0, 1, 2, 3, 4],), {}))

    assert [1, 4] == record(ended, 1)["value"]
