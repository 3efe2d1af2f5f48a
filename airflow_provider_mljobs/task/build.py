"""A task's arguments, rendered, as what the layers below take: a payload, a job spec, a specification."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey
from airflow_provider_mljobs.jobs.names import Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import PREFIX, Payload
from airflow_provider_mljobs.jobs.payload.git import GIT_SECRET_DIRECTORY, GitSource
from airflow_provider_mljobs.jobs.payload.sources import Place
from airflow_provider_mljobs.jobs.spec.job import CONTAINER, JobSpec, Resources, Runtime, is_managed
from airflow_provider_mljobs.jobs.spec.mounts import parse_endpoints, parse_volumes
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource, ml_job_options, render, specification
from airflow_provider_mljobs.jobs.spec.secrets import parse_secrets
from airflow_provider_mljobs.jobs.spec.specification import is_template, parse, validate, validate_using
from airflow_provider_mljobs.task import query_tags
from airflow_provider_mljobs.task.fields import (
    folder_of,
    identifier,
    integrations,
    is_specification_file,
    optional_identifier,
    read_specification,
)
from airflow_provider_mljobs.task.notify import lineage
from airflow_provider_mljobs.task.settings import deployment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_provider_mljobs.jobs.names import Identifier
    from airflow_provider_mljobs.operators import MLJobOperator


def payload_of(task: MLJobOperator, namespace: Namespace) -> Payload:
    """Pack what a task runs.

    :raises PayloadError: if it can't be packed.
    """
    common: dict[str, Any] = {
        "imports": task.imports,
        "pip_requirements": task.pip_requirements,
        "place": Place(folder=folder_of(task), namespace=namespace),
    }
    if task.function is not None:
        return Payload.of_function(task.function, serializer=task.serializer, **common)
    if isinstance(task.source, dict):
        return Payload.of_git(GitSource(**task.source), task.entrypoint or "", **common)
    return Payload.of_source(task.source, task.entrypoint, **common)


def job_spec(  # noqa: PLR0913 (what a task doesn't say of its job)
    task: MLJobOperator,
    name: Identifier,
    *,
    comment: str,
    query_tag: str,
    namespace: Namespace,
    warehouse: Identifier | None,
    environment: Mapping[str, str] | None = None,
) -> JobSpec:
    """Say how and where a task's job runs.

    :param name: what the job is called, within the schema.
    :param comment: who submits it.
    :param query_tag: what the task's own tells from others if it has none.
    :param warehouse: the default: a container's session has no warehouse of its own, not even its user's.
    :param environment: what the job gets besides the task's own variables, which come first.
    :raises InvalidJobSpecError: naming the argument that can't be.
    """
    pool = identifier(task.compute_pool, "compute_pool")
    volumes, mounts = parse_volumes(task.volumes or {}, namespace)
    added = {name: value for name, value in (environment or {}).items() if name not in (task.secrets or {})}
    return JobSpec(
        name=QualifiedName.parse(str(name), "job", namespace),
        compute_pool=pool,
        stage=None if task.stage_name is None else StagePath.parse(task.stage_name, "stage_name", namespace),
        query_warehouse=optional_identifier(task.query_warehouse, "query_warehouse") or warehouse,
        external_access_integrations=integrations(task.external_access_integrations),
        env_vars={**added, **(task.env_vars or {})},
        target_instances=task.target_instances,
        min_instances=task.min_instances,
        parallel=task.parallel,
        runtime_environment=task.runtime_environment or None,
        secrets=_secrets(task, namespace),
        volumes=volumes,
        volume_mounts=mounts,
        endpoints=parse_endpoints(task.endpoints),
        spec_overrides=task.spec_overrides,
        enable_metrics=task.enable_metrics,
        log_level=task.log_level,
        artifact_repositories=task.artifact_repositories,
        managed=is_managed(pool, managed=task.managed, artifact_repositories=task.artifact_repositories),
        query_tag=query_tags.shortened(query_tag if task.query_tag is None else task.query_tag),
        comment=comment,
    )


def origin_of(task: MLJobOperator, context: Context) -> Origin:
    """Say which try of which task instance submits a job."""
    ti = context["ti"]
    return Origin(
        task=TaskKey(
            airflow=deployment(),
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
        ),
        run_started=str(context["dag_run"].start_date),
        epoch=ti.max_tries,
        try_number=ti.try_number,
        waits=task.wait_for_completion,
        comment=task.comment or "",
    )


def environment_of(context: Context) -> dict[str, str]:
    """Return the variables by which a job knows its task, and OpenLineage in the job its parent."""
    ti = context["ti"]
    return {**query_tags.environment(ti), **lineage.environment(ti)}


def specification_source(task: MLJobOperator, namespace: Namespace) -> SpecificationSource:
    """Read a task's own specification, and refuse what can be known to be wrong with it.

    :raises InvalidJobSpecError: with the path in the specification.
    """
    spec, using = task.spec, task.using
    if isinstance(spec, str) and spec.startswith("@"):
        if using is not None:
            validate_using(using)
        file = StagePath.parse(spec, "spec", namespace)
        return SpecificationSource(file=file, using=None if using is None else using_values(using))
    if is_specification_file(spec):
        spec = read_specification(task)
    if using is not None:
        return _template(spec, using)
    document = parse(spec, "spec")
    validate(document, "spec")
    return SpecificationSource(text=render(document))


def preview(task: MLJobOperator, namespace: Namespace) -> str:
    """Return the statement that would start a task's job, without asking Snowflake.

    :raises InvalidJobSpecError: if the arguments can't make a job.
    """
    name = TaskKey(airflow="", dag_id=task.dag_id, run_id="dry_run", task_id=task.task_id).job_name(0, 1)
    task_name = json.dumps({"dag_id": task.dag_id, "task_id": task.task_id})
    spec = job_spec(task, name, comment=task_name, query_tag=task_name, namespace=namespace, warehouse=None)
    if task.spec is not None:
        return statements.execute_job_service(spec, specification_source(task, namespace))
    payload = payload_of(task, namespace)
    place = StagePath.parse(f"{task.stage_name}/{PREFIX}{payload.digest}_<period>", "stage_name", namespace)
    given = task.packed_arguments(None)
    image = spec.runtime_environment or "<the image that Snowflake names>"
    if spec.managed:
        options, job = ml_job_options(spec, place, given, image)
        return statements.execute_ml_job(str(spec.name), spec.compute_pool, _indented(options), _indented(job))
    node = Runtime(image="/snowflake/images/snowflake_images/runtime", resources=Resources(cpu=1, memory_gib=1))
    document = specification(spec, place, given, node)
    (container,) = (each for each in document["spec"]["containers"] if each["name"] == CONTAINER)
    container["image"] = image
    container["resources"] = f"<the whole node of {spec.compute_pool}>"
    document["spec"]["volumes"][0]["size"] = "<30 % of its memory>"
    return statements.execute_job_service(spec, SpecificationSource(text=_yaml(document)))


def _indented(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def _yaml(document: Mapping[str, Any]) -> str:
    import yaml

    return f"\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}"


def using_values(using: Mapping[str, Any]) -> dict[str, str]:
    """Write what a template's variables become: text as it is, all else as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in using.items()}


def _template(spec: Any, using: Mapping[str, Any]) -> SpecificationSource:
    if not isinstance(spec, str):
        raise InvalidJobSpecError("using is for a spec that is a template: its text, or a file on a stage.")
    if not is_template(spec):
        raise InvalidJobSpecError(
            "using has values, but spec has no variables left. Airflow renders {{ … }} first: put {% raw %} … "
            "{% endraw %} around what Snowflake is to render, or put the template on a stage."
        )
    validate_using(using, template=spec)
    return SpecificationSource(text=spec, using=using_values(using))


def _secrets(task: MLJobOperator, namespace: Namespace) -> list[dict[str, Any]]:
    secrets = dict(task.secrets or {})
    if isinstance(task.source, dict) and task.source.get("secret"):
        secrets[GIT_SECRET_DIRECTORY] = task.source["secret"]
    entries = parse_secrets(secrets, namespace)
    twice = sorted({str(entry.get("envVarName")) for entry in entries} & set(task.env_vars or {}))
    if twice:
        raise InvalidJobSpecError(f"{', '.join(twice)} stands in env_vars and in secrets; leave one of them.")
    return entries
