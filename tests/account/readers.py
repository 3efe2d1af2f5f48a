"""The provider's readers of Snowflake's answers, by statement: a recorded answer is replayed to its reader.

Each returns a value of the provider and the same value taken from the answer, so that a test can compare them.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.settings import Fault
from airflow_provider_mljobs.emulator.spcs.instance_families import FAMILIES
from airflow_provider_mljobs.gateway import inspection, statements
from airflow_provider_mljobs.gateway.downloads import list_directory
from airflow_provider_mljobs.gateway.log_store import Source, event_table
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, StagePath
from airflow_provider_mljobs.jobs.outcome.sightings import in_history
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.spec.job import JobSpec

_DIRECTORY = StagePath.parse("@DB.S.STAGE/p/a", "stage")
_TYPES = {"FIXED": "fixed", "REAL": "real", "BOOLEAN": "boolean", "OBJECT": "object", "VARIANT": "variant"}
# Containers of the platform matter only where they are the cause of a failure.
_PLATFORM = "stage-mount-v2-sidecar-"


@dataclass(frozen=True)
class Reader:
    """A reader of the provider's.

    :param statements: a regular expression for the statements whose answers it reads.
    :param columns: the columns without which an answer is none for it.
    :param read: returns a value, by a client for a job.
    :param expected: returns the same value from the recorded answer.
    """

    statements: str
    read: Callable
    expected: Callable
    columns: frozenset[str] = frozenset()

    def reads(self, answer):
        """Return whether it reads such an answer."""
        is_of_statement = re.search(self.statements, answer.statement, re.IGNORECASE) is not None
        return is_of_statement and self.columns <= set(map(str.lower, answer.names))


def readers_of(answer):
    """Return the readers of an answer; none if the provider reads no such statement."""
    return [reader for reader in READERS if reader.reads(answer)]


def fault_of(answer, matching):
    """Return the fault that answers with a recorded answer."""
    if answer.refusal is not None:
        number, state = answer.refusal.errno or 1, answer.refusal.sqlstate or "XX000"
        return Fault(matching=matching, effect="error", errno=number, sqlstate=state, message=answer.refusal.text)
    columns = tuple(Column(column.name, _wire_type(column.type)) for column in answer.columns)
    return Fault(matching=matching, effect="answer", answer=Result(columns, answer.rows, statement="show"))


def _wire_type(name):
    if name is not None and name.startswith("TIMESTAMP_"):
        return name.lower()
    return _TYPES.get(name, "text")


def _containers(client, job):
    return [
        (container.instance_id, container.name, container.status, container.message, container.last_exit_code)
        for container in inspection.containers(client, job)
        if not container.name.startswith(_PLATFORM)
    ]


def _expected_containers(answer):
    return [
        (
            str(row["instance_id"]),
            row["container_name"],
            row["status"],
            row["message"] or "",
            "" if row["last_exit_code"] in {None, ""} else str(row["last_exit_code"]),
        )
        for row in answer.records
        if row["container_name"] and not row["container_name"].startswith(_PLATFORM)
    ]


def _description(client, job):
    sighting = client.look(job)
    return sighting.status, inspection.layout(client, job).containers


def _expected_description(answer):
    (row,) = answer.records
    names = [container["name"] for container in yaml.safe_load(row["spec"])["spec"]["containers"]]
    return JobStatus(row["status"]), tuple((i, name) for i in range(int(row["target_instances"])) for name in names)


def _expected_endpoints(answer):
    return {
        row["name"]: "" if " " in row["ingress_url"] else f"https://{row['ingress_url']}"
        for row in answer.records
        if str(row["is_public"]).lower() == "true"
    }


def _pool(client, job):
    (row,) = client.connection.rows(statements.show_compute_pools(Identifier("ANY")), most=1)
    spec = JobSpec(name=job, compute_pool=Identifier(row["name"]), stage=_DIRECTORY, runtime_environment="/an/image:1")
    return client.runtimes.of(spec).resources.cpu


def _family(client, job):
    resources = client.runtimes.of(JobSpec(name=job, compute_pool=Identifier("ML_POOL"), stage=_DIRECTORY)).resources
    return resources.cpu, resources.memory_gib, resources.gpu


def _expected_family(answer):
    (row,) = [row for row in answer.records if row["name"] == "CPU_X64_S"]
    return int(row["vcpu"]), int(row["memory_gib"]), int(row["gpu_count"])


def _image(client, job):
    return client.runtimes.of(JobSpec(name=job, compute_pool=Identifier("ML_POOL"), stage=_DIRECTORY)).image


def _history(client, job):
    (row,), _ = client.history(statements.get_job_history(job))
    return in_history(row)


def _expected_history(answer):
    (row,) = answer.records
    return JobStatus.DELETED if row["deleted_time"] is not None and not row["status"] else JobStatus(row["status"])


def _expected_event_table(answer):
    table = answer.records[0]["value"].upper()
    # The table itself is the administrators'.
    return table.replace("TELEMETRY.EVENTS", "TELEMETRY.EVENTS_VIEW")


def _past(client, job):
    return [(end.instance, end.name, end.status, end.exit_code) for end in inspection.ends(client, job)]


def _expected_past(answer):
    (text,) = answer.cells("instance_statuses")
    document = json.loads(text)
    return [
        (int(instance["instanceId"]), container["containerName"], container["status"], container.get("lastExitCode"))
        for instance in document["instances"]
        for container in instance["containers"]
        if not container["containerName"].startswith(_PLATFORM)
    ]


def _events(client, job):
    return {
        (event.instance, event.name): (event.status, event.message) for event in inspection.last_events(client, job)
    }


def _expected_events(answer):
    # The newest is the first row.
    return {
        (int(row["instance_id"]), row["container_name"]): (row["status"], row["message"])
        for row in reversed(answer.records)
    }


def _tail(client, job):
    return client.log_store.tail(Source(job, 0, "main")).text.splitlines()


READERS = (
    Reader(r"^SHOW SERVICE CONTAINERS", _containers, _expected_containers),
    Reader(r"^DESC\w* SERVICE", _description, _expected_description),
    Reader(
        r"^SHOW (JOB )?SERVICES",
        lambda client, job: client.statuses(ANYWHERE, ""),
        lambda answer: {row["name"]: JobStatus(row["status"]) for row in answer.records},
    ),
    Reader(r"^SHOW ENDPOINTS", inspection.endpoints, _expected_endpoints),
    Reader(r"^SHOW COMPUTE POOL INSTANCE FAMILIES", _family, _expected_family),
    Reader(r"^SHOW COMPUTE POOLS", _pool, lambda answer: FAMILIES[answer.records[0]["instance_family"]].vcpu),
    Reader(r"SYSTEM\$GET_ML_JOB_RUNTIME", _image, lambda answer: answer.value),
    Reader("GET_JOB_HISTORY", _past, _expected_past, frozenset({"instance_statuses"})),
    Reader("GET_JOB_HISTORY", _history, _expected_history, frozenset({"status", "completed_time", "deleted_time"})),
    Reader(
        r"SYSTEM\$GET_SERVICE_LOGS",
        _tail,
        lambda answer: str(answer.value).splitlines(),
    ),
    Reader(
        r"^SHOW PARAMETERS LIKE 'event_table'",
        lambda client, job: str(event_table(client.connection.rows(statements.show_event_table()))),
        _expected_event_table,
    ),
    Reader("SPCS_GET_EVENTS", _events, _expected_events, frozenset({"container_name", "status", "message"})),
    Reader(
        r"^(LIST|LS)\b",
        lambda client, job: [file.path for file in list_directory(client.connection, _DIRECTORY)],
        lambda answer: [row["name"].partition("/p/a/")[2] for row in answer.records],
    ),
    Reader(r"^DROP SERVICE", lambda client, job: client.drop(job), lambda answer: None),
)
