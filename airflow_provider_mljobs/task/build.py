"""Builds payload, job spec and service specification from the fields of a task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.gateway import statements
from airflow_provider_mljobs.jobs.comment import Origin, TaskKey
from airflow_provider_mljobs.jobs.names import Identifier, Namespace, QualifiedName, StagePath
from airflow_provider_mljobs.jobs.payload.archive import PREFIX, Payload
from airflow_provider_mljobs.jobs.payload.git import GIT_SECRET_DIRECTORY, GitSource
from airflow_provider_mljobs.jobs.payload.sources import Place
from airflow_provider_mljobs.jobs.spec.job import CONTAINER, JobSpec, Resources, Runtime, is_managed
from airflow_provider_mljobs.jobs.spec.mounts import parse_endpoints, parse_volumes
from airflow_provider_mljobs.jobs.spec.refusals import check
from airflow_provider_mljobs.jobs.spec.rendering import SpecificationSource, ml_job_options, render, specification
from airflow_provider_mljobs.jobs.spec.secrets import parse_secrets
from airflow_provider_mljobs.jobs.spec.specification import is_template, parse, validate_using
from airflow_provider_mljobs.task import query_tags
from airflow_provider_mljobs.task.fields import identifier, integrations, optional_identifier
from airflow_provider_mljobs.task.notify import lineage
from airflow_provider_mljobs.task.settings import deployment, node_memory_margin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_provider_mljobs.task.fields import JobFields


def payload_of(fields: JobFields, namespace: Namespace) -> Payload:
    """Pack the payload of a task."""
    common: dict[str, Any] = {
        "imports": fields.imports,
        "pip_requirements": fields.pip_requirements,
        "place": Place(folder=fields.folder, namespace=namespace),
    }
    if fields.function is not None:
        return Payload.of_function(fields.function, serializer=fields.serializer, **common)
    source = GitSource(**fields.source) if isinstance(fields.source, dict) else fields.source
    return Payload.of_source(source, fields.entrypoint, **common)


def job_spec(  # noqa: PLR0913 (the parts that no field has)
    fields: JobFields,
    name: Identifier,
    *,
    comment: str,
    query_tag: str,
    namespace: Namespace,
    warehouse: Identifier | None,
    environment: Mapping[str, str] | None = None,
) -> JobSpec:
    """Build the spec of a task's job.

    :param warehouse: the default warehouse; a container's session has none, not even its user's.
    :param environment: variables beside the task's own, which win.
    """
    pool = identifier(fields.compute_pool, "compute_pool")
    volumes, mounts = parse_volumes(fields.volumes or {}, namespace)
    added = {name: value for name, value in (environment or {}).items() if name not in (fields.secrets or {})}
    return JobSpec(
        name=QualifiedName.parse(str(name), "job", namespace),
        compute_pool=pool,
        stage=None if fields.stage_name is None else StagePath.parse(fields.stage_name, "stage_name", namespace),
        query_warehouse=optional_identifier(fields.query_warehouse, "query_warehouse") or warehouse,
        external_access_integrations=integrations(fields.external_access_integrations),
        env_vars={**added, **(fields.env_vars or {})},
        target_instances=fields.target_instances,
        min_instances=fields.min_instances,
        parallel=fields.parallel,
        ray=fields.ray,
        runtime_environment=fields.runtime_environment or None,
        secrets=_secrets(fields, namespace),
        volumes=volumes,
        volume_mounts=mounts,
        endpoints=parse_endpoints(fields.endpoints),
        spec_overrides=fields.spec_overrides,
        enable_metrics=fields.enable_metrics,
        log_level=fields.log_level,
        artifact_repositories=fields.artifact_repositories,
        managed=is_managed(
            pool,
            managed=fields.managed,
            artifact_repositories=fields.artifact_repositories,
            runtime_environment=fields.runtime_environment,
        ),
        node_memory_margin=node_memory_margin(),
        query_tag=query_tags.shortened(query_tag if fields.query_tag is None else fields.query_tag),
        comment=comment,
    )


def origin_of(fields: JobFields, context: Context) -> Origin:
    """Return the try and the task instance that submit a job."""
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
        waits=fields.wait_for_completion,
        comment=fields.comment or "",
    )


def environment_of(context: Context) -> dict[str, str]:
    """Return the variables that name the task to the job, and the parent run to OpenLineage in the job."""
    ti = context["ti"]
    return {**query_tags.environment(ti), **lineage.environment(ti)}


def specification_source(fields: JobFields, namespace: Namespace) -> SpecificationSource:
    """Read a task's own specification, and refuse known errors in it."""
    spec, using = fields.spec, fields.using
    if isinstance(spec, str) and spec.startswith("@"):
        if using is not None:
            validate_using(using)
        file = StagePath.parse(spec, "spec", namespace)
        return SpecificationSource(file=file, using=None if using is None else using_values(using))
    if using is not None:
        return _template(spec, using)
    document = parse(spec)
    check(document)
    return SpecificationSource(text=render(document), document=document)


def preview(fields: JobFields, namespace: Namespace) -> str:
    """Return the statement that would start a task's job, without asking Snowflake."""
    fields = fields.with_specification()
    name = TaskKey(airflow="", dag_id=fields.dag_id, run_id="dry_run", task_id=fields.task_id).job_name(0, 1)
    task_name = json.dumps({"dag_id": fields.dag_id, "task_id": fields.task_id})
    spec = job_spec(fields, name, comment=task_name, query_tag=task_name, namespace=namespace, warehouse=None)
    if fields.spec is not None:
        return statements.execute_job_service(spec, specification_source(fields, namespace))
    payload = payload_of(fields, namespace)
    place = StagePath.parse(f"{fields.stage_name}/{PREFIX}{payload.digest}_<period>", "stage_name", namespace)
    arguments = fields.pack_arguments()
    image = spec.runtime_environment or "<the image that Snowflake names>"
    if spec.managed:
        options, job = ml_job_options(spec, place, arguments, image)
        return statements.execute_ml_job(str(spec.name), spec.compute_pool, _indented(options), _indented(job))
    import yaml

    node = Runtime(image="/snowflake/images/snowflake_images/runtime", resources=Resources(cpu=1, memory_gib=1))
    document = specification(spec, place, arguments, node)
    (container,) = (each for each in document["spec"]["containers"] if each["name"] == CONTAINER)
    container["image"] = image
    container["resources"] = f"<the whole node of {spec.compute_pool}>"
    document["spec"]["volumes"][0]["size"] = "<30 % of its memory>"
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return statements.execute_job_service(spec, SpecificationSource(text=f"\n{text}"))


def _indented(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def using_values(using: Mapping[str, Any]) -> dict[str, str]:
    """Write the values of a template's variables: text as it is, other values as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in using.items()}


def _template(spec: Any, using: Mapping[str, Any]) -> SpecificationSource:
    if not isinstance(spec, str):
        raise InvalidJobSpecError("using is for a spec that is a template: its text, or a file on a stage.")
    if not is_template(spec):
        raise InvalidJobSpecError(
            "using has values, but spec has no variables left. Airflow renders {{ … }} first: put {% raw %} … "
            "{% endraw %} around the parts that Snowflake renders, or put the template on a stage."
        )
    validate_using(using, template=spec)
    return SpecificationSource(text=spec, using=using_values(using))


def _secrets(fields: JobFields, namespace: Namespace) -> list[dict[str, Any]]:
    secrets = dict(fields.secrets or {})
    if isinstance(fields.source, dict) and fields.source.get("secret"):
        secrets[GIT_SECRET_DIRECTORY] = fields.source["secret"]
    entries = parse_secrets(secrets, namespace)
    twice = sorted({str(entry.get("envVarName")) for entry in entries} & set(fields.env_vars or {}))
    if twice:
        raise InvalidJobSpecError(f"{', '.join(twice)} is in both env_vars and secrets; remove one of them.")
    return entries
