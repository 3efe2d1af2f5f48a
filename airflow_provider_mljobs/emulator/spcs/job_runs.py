"""Plans of containers: environment, volumes, secrets and login of each."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.needs import located
from airflow_provider_mljobs.emulator.containers.instance import InstancePlan, Mount, probe_isolation
from airflow_provider_mljobs.emulator.containers.joblog import JobLog
from airflow_provider_mljobs.emulator.containers.usage import UsageLog
from airflow_provider_mljobs.emulator.identity import HOST, LOCATOR
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name, parse_stage
from airflow_provider_mljobs.emulator.spcs.specification import Specification
from airflow_provider_mljobs.emulator.spcs.specification_schema import memory_bytes
from airflow_provider_mljobs.emulator.tokens import JobIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_mljobs.emulator.access.rights import Access
    from airflow_provider_mljobs.emulator.settings import Settings
    from airflow_provider_mljobs.emulator.spcs.jobs import JobRequest
    from airflow_provider_mljobs.emulator.spcs.secrets import Secrets
    from airflow_provider_mljobs.emulator.spcs.specification import Container
    from airflow_provider_mljobs.emulator.stages.store import Stages

# The host name of an instance in Snowflake begins with this and ends with the instance's index.
_HOST_NAME = "statefulset"


@dataclass(frozen=True)
class JobFiles:
    """The files of jobs.

    :param root: directory of all jobs.
    """

    root: Path

    def job(self, job: str) -> Path:
        """Return the directory of a job."""
        return self.root / job

    def log(self, job: str, instance: int, container: str) -> JobLog:
        """Return the log of a container."""
        return JobLog(self.root / job / f"{instance}.{container}.log")

    def usage(self, job: str, instance: int, container: str) -> UsageLog:
        """Return the usage of a container."""
        return UsageLog(self.root / job / f"{instance}.{container}.usage")

    def scratch(self, job: str, instance: int) -> Path:
        """Return the directory of an instance: its private volumes and its containers' own files."""
        return self.root / job / f"{instance}.scratch"

    def clear(self, job: str, instance: int) -> None:
        """Delete the files of an instance, except its logs."""
        shutil.rmtree(self.scratch(job, instance), ignore_errors=True)

    def forget(self, job: str) -> None:
        """Delete all files of a job."""
        shutil.rmtree(self.root / job, ignore_errors=True)


def identity_of(request: JobRequest) -> JobIdentity:
    """Return the identity with which a job logs in."""
    database, schema = _home(request)
    warehouse = None if request.query_warehouse is None else parse_name(request.query_warehouse).name
    return JobIdentity(request.name.name, request.owner, database, schema, warehouse)


@dataclass(frozen=True)
class Planner:
    """Makes the plans of a job's containers.

    :param settings: the root directory and the interpreter of the containers.
    :param port: where containers log in.
    :param files: the files of jobs.
    :param stages: the account's stages.
    :param secrets: its secrets.
    :param access: its rights: without WRITE a stage is mounted read-only.
    """

    settings: Settings
    port: int
    files: JobFiles
    stages: Stages
    secrets: Secrets
    access: Access

    def check_stages(self, request: JobRequest) -> None:
        """Raise 2003 if a stage that the job wants to mount doesn't exist."""
        for _, source in _stage_sources(request):
            self._stage_directory(request, source)

    def check_secrets(self, request: JobRequest) -> None:
        """Raise 2003 if a secret that the job wants doesn't exist, 395018 if it lacks the wanted key."""
        for container in request.specification.containers:
            for secret in container.secrets:
                self.secrets.values(secret, request.name)

    def shown_specification(self, request: JobRequest) -> str:
        """Return the specification as DESCRIBE SERVICE shows it.

        Where containers can't have their mounts at their paths, jobs write the directories of the host into their
        results; clients map those back by the mount paths, so DESCRIBE shows the directories instead.
        """
        specification = request.specification
        if probe_isolation() == "namespace":
            return specification.text
        sources = _stage_sources(request)
        directories = {name: str(self._stage_directory(request, source)) for name, source in sources}
        document = copy.deepcopy(dict(specification.document))
        for container in document["spec"]["containers"]:
            for mount in container.get("volumeMounts", ()):
                mount["mountPath"] = directories.get(mount["name"], mount["mountPath"])
        return Specification(document).text

    def plans(self, request: JobRequest, instance: int, address: str, token: str) -> Iterator[tuple[str, InstancePlan]]:
        """Create an instance's volumes; yield each container's name with its plan."""
        scratch = self.files.scratch(request.id, instance)
        shutil.rmtree(scratch, ignore_errors=True)
        volumes = self._volumes(request, scratch)
        memory, read_only = _private_memory(request), self._read_only(request)
        for container in request.specification.containers:
            environment, files = self._secrets(request, container, scratch)
            mounts = [
                Mount(source=volumes[name], path=path, memory=memory.get(name), read_only=name in read_only)
                for name, path in container.mounts
            ]
            yield (
                container.name,
                InstancePlan(
                    directory=scratch / "containers" / container.name,
                    image=container.image_path,
                    images=self.settings.images,
                    command=container.command,
                    args=container.args,
                    env={**container.env, **environment, **self._platform(request, instance)},
                    mounts=(*mounts, *files),
                    shared=(self.settings.root,),
                    address=address,
                    hostname=f"{_HOST_NAME}-{instance}",
                    egress=request.has_egress,
                    token=token,
                    connection=self._connection(request),
                    python=self.settings.python,
                ),
            )

    def _volumes(self, request: JobRequest, scratch: Path) -> dict[str, Path]:
        volumes = {}
        for volume in request.specification.volumes:
            volumes[volume["name"]] = directory = scratch / "volumes" / volume["name"]
            directory.mkdir(parents=True)
        for name, source in _stage_sources(request):
            volumes[name] = self._stage_directory(request, source)
        return volumes

    def _read_only(self, request: JobRequest) -> set[str]:
        """Return the stage volumes that the job's owner role may only read."""
        rights = self.access.rights(request.name.name, request.owner)
        return {
            volume
            for volume, source in _stage_sources(request)
            if not rights.has(located("STAGE", _stage(request, source)), "WRITE")
        }

    def _stage_directory(self, request: JobRequest, source: str) -> Path:
        """Return the directory of a stage volume; a name without a schema means the job's schema."""
        return self.stages.mount(parse_stage(source), _stage(request, source))

    def _secrets(self, request: JobRequest, container: Container, scratch: Path) -> tuple[dict[str, str], list[Mount]]:
        environment: dict[str, str] = {}
        files: list[Mount] = []
        for index, entry in enumerate(container.secrets):
            values = self.secrets.values(entry, request.name)
            if "envVarName" in entry:
                (environment[entry["envVarName"]],) = values.values()
                continue
            directory = scratch / "secrets" / f"{container.name}.{index}"
            directory.mkdir(parents=True, mode=0o700)
            for key, value in values.items():
                (directory / key).write_text(value, encoding="utf-8")
            files.append(Mount(source=directory, path=entry["directoryPath"], read_only=True))
        return environment, files

    def _platform(self, request: JobRequest, instance: int) -> dict[str, str]:
        database, schema = _home(request)
        environment = {
            "SNOWFLAKE_ACCOUNT": LOCATOR,
            "SNOWFLAKE_HOST": HOST,
            "SNOWFLAKE_DATABASE": database,
            "SNOWFLAKE_SCHEMA": schema,
            "SNOWFLAKE_SERVICE_NAME": request.name.name,
        }
        if request.replicas is not None:
            environment["SNOWFLAKE_JOBS_COUNT"] = str(request.replicas)
            environment["SNOWFLAKE_JOB_INDEX"] = str(instance)
        return environment

    def _connection(self, request: JobRequest) -> dict[str, str]:
        database, schema = _home(request)
        return {
            "account": LOCATOR,
            "host": HOST,
            "port": str(self.port),
            "protocol": "http",
            "database": database,
            "schema": schema,
        }


def _private_memory(request: JobRequest) -> dict[str, int]:
    """Return the sizes of memory volumes that only one container mounts; shared ones are on disk."""
    mounted = [name for container in request.specification.containers for name, _ in container.mounts]
    return {
        volume["name"]: int(memory_bytes(volume["size"]))
        for volume in request.specification.volumes
        if volume["source"] == "memory" and mounted.count(volume["name"]) == 1
    }


def _home(request: JobRequest) -> tuple[str, str]:
    return request.name.database or "", request.name.schema or ""


def _stage(request: JobRequest, source: str) -> QualifiedName:
    name = parse_stage(source).stage
    return QualifiedName(name.name, name.schema or request.name.schema, name.database or request.name.database)


def _stage_sources(request: JobRequest) -> Iterator[tuple[str, str]]:
    for volume in request.specification.volumes:
        if volume["source"] == "stage":
            yield volume["name"], volume["stageConfig"]["name"]
