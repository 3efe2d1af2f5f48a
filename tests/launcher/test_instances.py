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
    """Run a script, or what is given, as one instance of three that all run it."""

    def instance(index, payload, arguments=None, **environment):
        if isinstance(payload, str):
            payload = Payload.of_source(script(payload), None)
        parallel = {"SNOWFLAKE_JOBS_COUNT": "3", "SNOWFLAKE_JOB_INDEX": str(index), "MLJOBS_PARALLEL": "1"}
        return run(payload, arguments, **parallel | environment)

    return instance


def record(ended, index):
    """Return what an instance has left."""
    return json.loads((ended.stage / "output" / "instances" / f"{index}.json").read_text())


def written(ended):
    """Return the names of the files that the launcher has written."""
    root = ended.stage / "output"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_job_of_one_has_no_records(run, script):
    """Its result says it all."""
    assert ["mljob_result"] == written(run(Payload.of_source(script("__return__ = 1"), None)))


def test_the_heads_value_is_the_jobs(instance):
    """As with Snowflake's client, the value of instance 0; its record has it, too."""
    ended = instance(0, "import os\n__return__ = os.environ['SNOWFLAKE_JOB_INDEX']")
    found = record(ended, 0)

    assert ["instances/0.json", "mljob_result"] == written(ended)
    assert "0" == ended.record["value"]
    assert (0, None, "0") == (found["exit_code"], found["exc"], found["value"])
    assert 0 == found["metadata"]["instance"]


def test_the_others_have_results_of_their_own(instance):
    """In the same format, so that the same code reads them."""
    ended = instance(2, "import os\n__return__ = {'index': os.environ['SNOWFLAKE_JOB_INDEX']}")
    found = InstanceResult.parse(2, json.dumps(record(ended, 2)))
    value = JobResult.parse(json.dumps(record(ended, 2)), OUTPUT / "instances/2").value

    assert ["instances/2.json", "instances/2/mljob_result"] == written(ended)
    assert (2, 0, None) == (found.instance, found.exit_code, found.failure)
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
    """They lie beside it, each instance's in a directory of its own."""
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
    """Its log has the traceback; its record has what Snowflake's client rebuilds the exception of."""
    ended = instance(index, "raise ValueError('no shard')")
    found = record(ended, index)
    failure = InstanceResult.parse(index, json.dumps(found)).failure

    assert 1 == ended.code == found["exit_code"]
    assert "ValueError: no shard" in ended.errors
    assert ("builtins.ValueError", "no shard", "ValueError('no shard')") == tuple(
        found["exc"][key] for key in ("type", "message", "repr")
    )
    assert "line 1, in <module>" in found["exc"]["traceback"]
    assert (index, "builtins.ValueError", "no shard") == (failure.instance, failure.remote_type, failure.message)


def test_exit_codes(instance):
    """The container's is the record's."""
    ended = instance(1, "import sys\nsys.exit(7)")

    assert 7 == ended.code == record(ended, 1)["exit_code"]


# What the platform does to an instance when another has failed.
STOP = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"


@pytest.mark.parametrize("index", [0, 1])
def test_an_instance_that_is_stopped(instance, index):
    """It says so, and can clean up; its end is nobody's error and no result."""
    ended = instance(index, "try:\n    " + STOP.replace("\n", "\n    ") + "\nfinally:\n    print('cleaned up')")

    assert 143 == ended.code
    assert {"exit_code": 143, "exc": None} == {key: record(ended, index)[key] for key in ("exit_code", "exc")}
    assert [f"instances/{index}.json"] == written(ended)
    assert ended.output.endswith("cleaned up\n")
    assert f"Instance {index} of 3 was stopped.\n" in ended.errors


def test_a_stop_is_a_stop(instance):
    """Whatever the payload makes of it."""
    ended = instance(1, "try:\n    {}\n    {}\nexcept BaseException:\n    __return__ = 1".format(*STOP.splitlines()))

    assert (143, 143) == (ended.code, record(ended, 1)["exit_code"])
    assert ["instances/1.json"] == written(ended)


@pytest.mark.parametrize(("module", "code"), [("ray.worker", 143), ("rays", 1)], ids=["Ray's", "the payload's"])
def test_a_stop_by_ray(run, script, module, code):
    """In a process that is connected to Ray its handler takes the signal, and ends the process with its own code."""
    script("import sys\n\ndef end(number, frame):\n    sys.exit(1)\n", f"{module.replace('.', '/')}.py")
    # In place of the package, which may be installed.
    script("", "ray/__init__.py")
    job = script(f"import signal\nfrom {module} import end\nsignal.signal(signal.SIGTERM, end)\n{STOP}")
    ended = run(Payload.of_source(job.parent, "job.py"), MLJOBS_PARALLEL="1")

    assert code == ended.code == record(ended, 0)["exit_code"]


def test_a_payload_may_stop_its_own_processes(instance):
    """A child that it has forked is not the instance."""
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
    """It leaves the record that readers of parallel jobs look for."""
    ended = run(Payload.of_source(script("__return__ = 1"), None), MLJOBS_PARALLEL="1")

    assert (0, 1) == (record(ended, 0)["exit_code"], ended.record["value"])


def test_a_function_on_every_instance(instance):
    """It finds out which one it runs on from the environment."""

    def shard(rows):
        import os

        return rows[int(os.environ["SNOWFLAKE_JOB_INDEX"]) :: int(os.environ["SNOWFLAKE_JOBS_COUNT"])]

    ended = instance(1, Payload.of_function(shard), Arguments.of_function(shard, ([0, 1, 2, 3, 4],), {}))

    assert [1, 4] == record(ended, 1)["value"]
