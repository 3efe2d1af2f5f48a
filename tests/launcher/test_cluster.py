import importlib.util
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_mljobs
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.functions import pack
from airflow_provider_mljobs.launcher.cluster import (
    Peer,
    Requirement,
    find_head,
    head_options,
    head_port,
    on_one_machine,
    raylet_options,
    worker_options,
)
from airflow_provider_mljobs.launcher.environment import imports_ray

PACKAGE = str(Path(airflow_provider_mljobs.__file__).parent)
GIB = 1024**3
# An address of the cloud's, and one of a machine that all instances share.
OWN_NODE, SHARED = "10.16.4.7", "127.1.2.3"


@pytest.mark.parametrize(
    ("target", "environ", "least", "min_wait"),
    [
        (4, {}, 4, 6.0),
        (4, {"MLRS_MIN_INSTANCES": "2"}, 2, 6.0),
        (2, {"MLRS_INSTANCES_TIMEOUT": "20"}, 2, 2.0),
        (2, {"MLRS_INSTANCES_MIN_WAIT": "0"}, 2, 0.0),
        (1024, {"MLRS_INSTANCES_MIN_WAIT": ""}, 1024, 30.0),
    ],
    ids=["by default", "min_instances", "a tenth of the timeout", "no wait", "many"],
)
def test_what_the_entrypoint_waits_for(target, environ, least, min_wait):
    """The default wait grows by three seconds with each doubling of the instances, as in Snowflake's runtime."""
    requirement = Requirement.of(target, environ)

    assert (target, least, min_wait) == (requirement.target, requirement.least, requirement.min_wait)


def test_times_of_the_environment():
    """By default a job waits twelve minutes, and queries Snowflake every ten seconds."""
    given = {"MLRS_INSTANCES_TIMEOUT": "30", "MLRS_INSTANCES_CHECK_INTERVAL": "0.5"}

    assert (720.0, 10.0) == (Requirement.of(2, {}).timeout, Requirement.of(2, {}).interval)
    assert (30.0, 0.5) == (Requirement.of(2, given).timeout, Requirement.of(2, given).interval)


@pytest.mark.parametrize(
    ("available", "elapsed", "expected"),
    [
        (4, 0.5, "Target instance requirement met: 4 instances available after 0.5s"),
        (5, 0.5, "Target instance requirement met: 5 instances available after 0.5s"),
        (2, 5.9, ""),
        (2, 6.0, "Minimum instance requirement met: 2 instances available after 6.0s"),
        (3, 719.0, "Minimum instance requirement met: 3 instances available after 719.0s"),
        (1, 719.0, ""),
    ],
    ids=["all", "more", "enough but early", "enough", "enough but late", "too few"],
)
def test_waiting(available, elapsed, expected):
    """The entrypoint waits for all instances, or for enough of them after a while; the log shows which."""
    assert expected == Requirement.of(4, {"MLRS_MIN_INSTANCES": "2"}).met(available, elapsed)


def test_waiting_has_an_end():
    """An error after the timeout names the number of instances and the parameters to change."""
    with pytest.raises(TimeoutError) as caught:
        Requirement.of(4, {"MLRS_MIN_INSTANCES": "2"}).met(1, 720.2)

    assert str(caught.value).startswith("Timed out after 720s waiting for 2 instances, only 1 available.")
    assert "min_instances" in str(caught.value)


def test_ports_are_those_of_the_ml_runtime():
    """Ray uses the ports that the specification declares as endpoints; no others are open between nodes."""
    environ = {"HEAD_GCS_PORT": "12101", "OBJECT_MANAGER_PORT": "12111"}
    head = head_options(OWN_NODE, 13 * GIB, environ)
    raylet = raylet_options(OWN_NODE, "/tmp/ray", GIB, environ)

    assert not on_one_machine(OWN_NODE)
    assert {"--port=12101", "--ray-client-server-port=10001", "--dashboard-port=12003"} <= set(head)
    assert {
        "--node-ip-address=10.16.4.7",
        "--temp-dir=/tmp/ray",
        "--object-manager-port=12111",
        "--node-manager-port=12012",
        "--runtime-env-agent-port=12013",
        "--dashboard-agent-grpc-port=12014",
        "--dashboard-agent-listen-port=12015",
        "--min-worker-port=12031",
        "--max-worker-port=13000",
        "--metrics-export-port=11502",
        "--object-store-memory=1073741824",
    } <= set(raylet)
    assert "--address=10.16.4.7:12101" in worker_options(OWN_NODE, "TRAIN", environ)


def test_instances_on_one_machine_share_its_ports():
    """On one machine the heads of two jobs have different ports, and Ray takes free ones for the rest."""
    heads = [f"127.1.{block}.{number}" for block in (2, 3) for number in range(1, 255)]
    ports = [head_port(head, {}) for head in heads]
    client_ports = [port + 1 for port in ports]

    assert on_one_machine(SHARED)
    assert 2 * len(heads) == len({*ports, *client_ports})
    assert all(1024 < port < 32768 for port in ports)
    assert f"--port={head_port(SHARED, {})}" in head_options(SHARED, 13 * GIB, {"HEAD_GCS_PORT": "12001"})
    assert f"--address={SHARED}:{head_port(SHARED, {})}" in worker_options(SHARED, "TRAIN", {})
    assert "--object-manager-port=0" in raylet_options(SHARED, "/tmp/ray-1", GIB, {"OBJECT_MANAGER_PORT": "12011"})


def test_resources_tell_head_and_workers_apart():
    """Head and workers have the resources that Snowflake's libraries look for."""
    assert '--resources={"node_tag:head": 1}' in head_options(OWN_NODE, GIB, {})
    assert '--resources={"node_tag:worker": 1, "TRAIN": 1}' in worker_options(OWN_NODE, "TRAIN", {})


@pytest.mark.parametrize(
    ("address", "memory", "expected"),
    [(OWN_NODE, 8 * GIB, True), (OWN_NODE, 6 * GIB, False), (SHARED, 64 * GIB, False)],
    ids=["large node", "small node", "shared machine"],
)
def test_dashboard(address, memory, expected):
    """A small node runs no dashboard, which takes memory and a port."""
    options = head_options(address, memory, {})

    assert expected == ("--include-dashboard=true" in options)
    assert expected == ("--dashboard-host=0.0.0.0" in options)


QUICK = Requirement(target=2, least=2, min_wait=0, timeout=5, interval=0.05)


def asked(*answers):
    """Return answers for the instances in order, the last one repeatedly."""
    remaining = list(answers)
    return lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0]


@pytest.fixture
def listening():
    """Return the address of a head that listens."""
    with socket.create_server((SHARED, head_port(SHARED, {}))):
        yield SHARED


def test_the_head_is_found(listening):
    """A worker waits until Snowflake lists the head with its address and its Ray listens."""
    peers = asked({}, {0: Peer("", "PENDING")}, {0: Peer("127.9.9.9", "PENDING")}, {0: Peer(listening, "READY")})

    assert listening == find_head(peers, QUICK)


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "TERMINATING"])
def test_an_instance_that_comes_too_late(status, listening):
    """A worker that starts after the end of the head ends without an error."""
    assert None is find_head(asked({0: Peer(listening, status)}), QUICK)


def test_a_head_that_never_starts():
    """An error for a head that doesn't start names its log and the variable for more time."""
    requirement = Requirement(target=2, least=2, min_wait=0, timeout=0.1, interval=0.05)
    with pytest.raises(
        TimeoutError, match=re.escape("Instance 0 of the job did not start Ray within 0s; see its log.")
    ):
        find_head(asked({0: Peer("127.9.9.9", "PENDING")}), requirement)


class TestWithoutRay:
    """Containers without Ray: here, the interpreter from which this environment was made."""

    @staticmethod
    def run(code):
        """Run code of the launcher in that interpreter."""
        return subprocess.run(
            [Path(sys.base_prefix, "bin/python3"), "-I", "-c", f"import sys; sys.path.append({PACKAGE!r}); {code}"],
            capture_output=True,
            text=True,
            check=False,
        )

    def test_the_head_says_what_to_do(self):
        """The head refuses to run alone the work of several instances."""
        ended = self.run("from launcher.cluster import head; head(0, 3).__enter__(); print('working')")

        assert (1, "") == (ended.returncode, ended.stdout)
        assert "LauncherError: target_instances=3 needs Ray, which this container doesn't have" in ended.stderr
        assert "add 'ray' to pip_requirements" in ended.stderr
        assert "parallel=True" in ended.stderr

    def test_the_others_leave_it_to_the_head(self):
        """Workers succeed, so that the job fails with the head's error."""
        ended = self.run("from launcher.cluster import work; work(2, 3)")

        assert (0, "Instance 2 of 3 has no Ray and does nothing; see the log of instance 0.\n") == (
            ended.returncode,
            ended.stdout,
        )


def test_a_head_without_grpc_serves_no_clients():
    """Without gRPC the head has no port for ray:// addresses, whose option Ray would refuse."""
    with_grpc, without = (head_options(OWN_NODE, GIB, {}, has_grpc=has_grpc) for has_grpc in (True, False))

    assert {"--ray-client-server-port=10001"} == set(with_grpc) - set(without)


def pickled(function):
    """Return a function's pickle, as in a payload."""
    return pack(function, "cloudpickle").pickle


def uses_distributors():
    """Import a module of the ML runtime."""
    from snowflake.ml.modeling.distributors.xgboost import XGBEstimator

    return XGBEstimator


def mentions_ray():
    """Return a text."""
    return "array of rays, ray"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.py", b"import ray\n", True),
        ("a.py", b"def f():\n    from ray import tune\n", True),
        ("a.py", b"from snowflake.ml.data.data_connector import DataConnector", True),
        ("a.py", b"from snowflake.ml.modeling import distributors", True),
        ("a.py", b"import rayon\nfrom snowflake.ml.registry import Registry\n# import ray\n", False),
        ("a.py", b"text = 'import ray'", False),
        ("a.txt", b"import ray", False),
        ("function.pkl", pickled(uses_distributors), True),
        ("function.pkl", pickled(mentions_ray), False),
    ],
)
def test_payloads_that_import_ray(tmp_path, name, content, expected):
    """Ray and the parts of snowflake.ml on top of it are recognised in source and in pickled functions."""
    folder = tmp_path / "app" / "package"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)

    assert expected is imports_ray(tmp_path / "app", tmp_path / "imports", folder / "function.pkl")


IMPORT = "import os\ndef later():\n    import ray\n"
HAS_NO_RAY = "import sys; sys.modules['ray'] = None"


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_one_instance_with_ray(run, script):
    """A payload that imports Ray finds it running on the only instance."""
    text = "import ray\nray.init(address='auto', log_to_driver=False)\n__return__ = len(ray.nodes())"
    ended = run(Payload.of_source(script(text), None))

    assert 0 == ended.code, ended.errors
    assert 1 == ended.record["value"]


@pytest.mark.parametrize(
    ("ray", "has_ray", "text"),
    [("0", True, IMPORT), (None, True, "import os"), (None, False, IMPORT)],
    ids=["ray=False", "not imported", "not installed"],
)
def test_one_instance_without_ray(run, script, ray, has_ray, text):
    """Ray doesn't start on request, for a payload that doesn't import it, and where the container has none."""
    source = script(f"{text}\n__return__ = os.environ.get('RAY_ADDRESS')")
    path = {} if has_ray else {"PYTHONPATH": str(script(HAS_NO_RAY, "../site/sitecustomize.py").parent)}
    ended = run(Payload.of_source(source, None), **path, **({} if ray is None else {"MLJOBS_RAY": ray}))

    assert (0, None) == (ended.code, ended.record["value"])


def test_ray_that_is_not_installed(run, script):
    """ray=True in a container without Ray fails with the ways out."""
    path = str(script(HAS_NO_RAY, "../site/sitecustomize.py").parent)
    ended = run(Payload.of_source(script(""), None), MLJOBS_RAY="1", PYTHONPATH=path)

    assert 1 == ended.code
    assert "ray=True needs Ray, which this container doesn't have" in ended.record["metadata"]["message"]
