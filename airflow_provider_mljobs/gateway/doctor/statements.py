"""The SQL of the doctor: looks that change nothing, and the statements that mend, which only its user runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.jobs.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.jobs.grants import Name
    from airflow_provider_mljobs.jobs.names import Identifier, QualifiedName

# Account parameters: the kinds of services that may run. See "ALLOWED_SPCS_WORKLOAD_TYPES" in Snowflake's reference.
ALLOWED_WORKLOADS = "ALLOWED_SPCS_WORKLOAD_TYPES"
DISALLOWED_WORKLOADS = "DISALLOWED_SPCS_WORKLOAD_TYPES"


def current_session() -> str:
    """Ask for the user, role and warehouse of the session."""
    return (
        "SELECT CURRENT_USER() AS USER_NAME, CURRENT_ROLE() AS ROLE_NAME, CURRENT_WAREHOUSE() AS WAREHOUSE_NAME, "
        "CURRENT_VERSION() AS VERSION"
    )


def show_grants_to_role(role: Identifier) -> str:
    """List the privileges and roles granted to a role."""
    return f"SHOW GRANTS TO ROLE {role}"


def show_grants_to_database_role(role: str) -> str:
    """List the privileges granted to a database role, by its name as SHOW GRANTS writes it."""
    return f"SHOW GRANTS TO DATABASE ROLE {role}"


def show_grants_on(kind: str, name: Name) -> str:
    """List the privileges that were granted on an object."""
    return f"SHOW GRANTS ON {kind} {name}"


def show_warehouses() -> str:
    """List the warehouses that the role can see."""
    return "SHOW WAREHOUSES"


def show_compute_pools() -> str:
    """List the compute pools that the role can see."""
    return "SHOW COMPUTE POOLS"


def show_stages(stage: QualifiedName) -> str:
    """List stages by name; LIKE takes ``_`` for any character, so the caller picks the row of the very name."""
    return f"SHOW STAGES LIKE {literal(stage.name.value)} IN SCHEMA {stage.namespace}"


def show_image_repositories() -> str:
    """List the image repositories that the role can see."""
    return "SHOW IMAGE REPOSITORIES IN ACCOUNT"


def show_integrations(name: Identifier) -> str:
    """List external access integrations by name."""
    return f"SHOW EXTERNAL ACCESS INTEGRATIONS LIKE {literal(name.value)}"


def show_workload_types() -> str:
    """Ask which kinds of services may run in the account."""
    return "SHOW PARAMETERS LIKE '%SPCS_WORKLOAD_TYPES' IN ACCOUNT"


def show_services() -> str:
    """List the services that the role can see, jobs included."""
    return "SHOW SERVICES IN ACCOUNT"


# The statements that mend.


def grant(privileges: Iterable[str], kind: str, name: Name, role: Identifier) -> str:
    """Grant privileges on an object to a role."""
    return f"GRANT {', '.join(privileges)} ON {kind} {name} TO ROLE {role}"


def grant_application_role(name: str, role: Identifier) -> str:
    """Grant a role of an application, e.g. ``SNOWFLAKE.EVENTS_VIEWER``, to a role."""
    return f"GRANT APPLICATION ROLE {name} TO ROLE {role}"


def grant_role(role: Identifier, user: Identifier) -> str:
    """Grant a role to a user."""
    return f"GRANT ROLE {role} TO USER {user}"


def resume_automatically(pool: Identifier) -> str:
    """Have a pool start when a job is submitted to it."""
    return f"ALTER COMPUTE POOL {pool} SET AUTO_RESUME = TRUE"


def create_stage(stage: QualifiedName) -> str:
    """Create a stage that containers can mount."""
    return f"CREATE STAGE {stage} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')"


def enable_integration(name: Identifier) -> str:
    """Enable an external access integration."""
    return f"ALTER EXTERNAL ACCESS INTEGRATION {name} SET ENABLED = TRUE"


def set_account_parameter(name: str, value: str) -> str:
    """Set a parameter of the account to a text."""
    return f"ALTER ACCOUNT SET {name} = {literal(value)}"


def set_event_table(table: str) -> str:
    """Have the account store logs and metrics of services in a table."""
    return f"ALTER ACCOUNT SET EVENT_TABLE = {table}"


def allow_package_index(role: Identifier) -> tuple[str, str]:
    """Create an integration for PyPI with the network rule that Snowflake keeps for it, and let a role use it."""
    name = "PYPI_ACCESS"
    rules = "ALLOWED_NETWORK_RULES = (SNOWFLAKE.EXTERNAL_ACCESS.PYPI_RULE)"
    create = f"CREATE EXTERNAL ACCESS INTEGRATION {name} {rules} ENABLED = TRUE"
    return create, f"GRANT USAGE ON INTEGRATION {name} TO ROLE {role}"
