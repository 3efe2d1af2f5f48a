"""The objects of the REST API: the properties that they have, and those that a request can set.

The names are those of Snowflake's OpenAPI specifications, https://github.com/snowflakedb/snowflake-rest-api-specs.
"""

from __future__ import annotations

from airflow_provider_mljobs.emulator.server.rest.answers import Shape, integer, truth
from airflow_provider_mljobs.emulator.server.rest.properties import (
    flag,
    ignored,
    keyword,
    name,
    names,
    nested,
    number,
    text,
    unset,
)

POOL = Shape(
    "Compute pool",
    "name min_nodes max_nodes instance_family auto_resume comment state num_services num_jobs auto_suspend_secs "
    "active_nodes idle_nodes target_nodes created_on resumed_on updated_on owner is_exclusive application budget "
    "error_code status_message placement_group",
    {"auto_resume": truth("auto_resume"), "is_exclusive": truth("is_exclusive")},
)
NEW_POOL = {
    "name": ignored, "min_nodes": number, "max_nodes": number, "instance_family": name, "auto_resume": flag,
    "auto_suspend_secs": number, "initially_suspended": flag, "comment": text, "placement_group": text,
}  # fmt: skip
FAMILY = Shape(
    "Instance family",
    "name description vcpu memory_gib storage_gib gpu gpu_count gpu_memory_gib current_node_usage message",
    names=(),
)

WAREHOUSE = Shape(
    "Warehouse",
    "name type size state min_cluster_count max_cluster_count started_clusters running queued is_default is_current "
    "auto_suspend auto_resume available provisioning quiescing other created_on resumed_on updated_on owner comment "
    "resource_monitor scaling_policy budget owner_role_type",
    {"is_default": truth("is_default"), "is_current": truth("is_current")},
)
NEW_WAREHOUSE = {
    "name": ignored, "warehouse_type": text, "warehouse_size": text, "wait_for_completion": flag,
    "max_cluster_count": number, "min_cluster_count": number, "scaling_policy": text, "auto_suspend": number,
    "auto_resume": flag, "initially_suspended": flag, "resource_monitor": name, "comment": text,
    "enable_query_acceleration": flag, "query_acceleration_max_scale_factor": number, "max_concurrency_level": number,
    "statement_queued_timeout_in_seconds": number, "statement_timeout_in_seconds": number,
}  # fmt: skip

ROLE = Shape(
    "Role",
    "name comment created_on owner is_default is_current is_inherited assigned_to_users granted_to_roles granted_roles",
    {
        "owner": lambda row: row["owner"] or None,
        **{key: truth(key) for key in ("is_default", "is_current", "is_inherited")},
    },
)
NEW_ROLE = {"name": ignored, "comment": text}
GRANT = {
    "privileges": ignored, "grant_option": ignored, "securable_type": ignored, "securable": ignored,
    "containing_scope": unset,
}  # fmt: skip
GRANTED = Shape(
    "Grant",
    "privileges grant_option created_on grantee_type grantee_name securable_type securable_name granted_by_name",
    {
        "privileges": lambda row: [row["privilege"]],
        "grant_option": truth("grant_option"),
        "grantee_type": lambda row: row["granted_to"],
        "securable_type": lambda row: row["granted_on"],
        "securable_name": lambda row: row["name"],
        "granted_by_name": lambda row: row["granted_by"] or None,
    },
)
GRANT_OF = Shape("Grant", "created_on role granted_to grantee_name granted_by")

DATABASE = Shape(
    "Database",
    "name created_on kind is_default is_current origin owner comment options retention_time budget owner_role_type",
    {
        "kind": lambda row: "TRANSIENT" if "TRANSIENT" in str(row["options"]) else "PERMANENT",
        "is_default": truth("is_default"),
        "is_current": truth("is_current"),
        "retention_time": integer("retention_time"),
    },
)
NEW_DATABASE = {
    "name": ignored, "kind": ignored, "comment": text, "data_retention_time_in_days": number,
    "max_data_extension_time_in_days": number, "default_ddl_collation": text,
}  # fmt: skip

SCHEMA = Shape("Schema", DATABASE.properties.replace("origin", "database_name"), DATABASE.conversions)
NEW_SCHEMA = {"managed_access": keyword("WITH MANAGED ACCESS"), **NEW_DATABASE}

STAGE = Shape(
    "Stage",
    "name kind url endpoint storage_integration comment directory_table created_on has_credentials has_encryption_key "
    "owner owner_role_type region cloud",
    {
        "kind": lambda row: "TEMPORARY" if "TEMPORARY" in row["type"] else "PERMANENT",
        "directory_table": lambda row: {"enable": row["directory_enabled"] == "Y"},
        "has_credentials": truth("has_credentials"),
        "has_encryption_key": truth("has_encryption_key"),
    },
)
NEW_STAGE = {
    "name": ignored, "kind": ignored, "comment": text,
    "directory_table": nested("DIRECTORY", {"enable": flag, "refresh_on_create": ignored, "auto_refresh": unset}),
    "encryption": nested("ENCRYPTION", {"type": text}),
}  # fmt: skip
FILE = Shape("File", "name size md5 last_modified", {"size": lambda row: str(row["size"])}, names=())

REPOSITORY = Shape("Image repository", "name database_name schema_name created_on repository_url owner owner_role_type")
NEW_REPOSITORY = {"name": ignored}
IMAGE = Shape("Image", "created_on image_name tags digest image_path")

SERVICE = Shape(
    "Service",
    "name status compute_pool spec external_access_integrations query_warehouse comment is_async_job auto_resume "
    "current_instances target_instances min_ready_instances min_instances max_instances database_name schema_name "
    "owner dns_name created_on updated_on resumed_on suspended_on auto_suspend_secs owner_role_type is_job spec_digest "
    "is_upgrading managing_object_domain managing_object_name",
    {
        "spec": lambda row: {"spec_type": "from_inline", "spec_text": row["spec"]},
        "external_access_integrations": lambda row: (
            integrations.strip("[]").split(", ") if (integrations := row["external_access_integrations"]) else None
        ),
    },
)
JOB = {
    "name": ignored, "compute_pool": ignored, "spec": ignored, "is_async_job": ignored,
    "external_access_integrations": names, "query_warehouse": name, "comment": text,
}  # fmt: skip
CONTAINER = Shape(
    "Container",
    "database_name schema_name service_name service_status instance_id instance_status container_name status message "
    "image_name image_digest restart_count start_time",
)
INSTANCE = Shape(
    "Instance",
    "database_name schema_name service_name service_status instance_id status spec_digest creation_time start_time",
)
ENDPOINT = Shape(
    "Endpoint",
    "name port portRange protocol is_public ingress_url",
    {"portRange": lambda row: row["port_range"]},
    names=(),
)
SERVICE_ROLE = Shape("Service role", "created_on name comment", names=())
