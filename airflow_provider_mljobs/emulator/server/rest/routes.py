"""The routes of the REST API: method and path, the statement that they become, and the JSON of its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow_provider_mljobs.emulator.server.rest import shapes
from airflow_provider_mljobs.emulator.server.rest.answers import cell, many, one, status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mljobs.emulator.server.rest.answers import Answering, Shape
    from airflow_provider_mljobs.emulator.server.rest.properties import Properties


@dataclass(frozen=True)
class Route:
    """A route.

    :param path: the path below ``/api/v2/``, a regular expression in which ``{name}`` is a parameter.
    :param statement: the statement; :class:`Call` fills its parts.
    :param answer: builds the JSON of the statement's rows.
    :param properties: the properties that the body may set.
    :param each: a statement for the name in each row, whose row replaces it.
    """

    method: str
    path: str
    statement: str
    answer: Answering = status
    properties: Properties = field(default_factory=dict)
    each: str | None = None

    def match(self, method: str, path: str) -> Mapping[str, str] | None:
        """Return the parameters in the path of a request for this route; ``None`` for any other request."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", self.path)
        matched = re.fullmatch(pattern, path) if method == self.method else None
        return {key: unquote(value) for key, value in matched.groupdict().items()} if matched else None


def _collection(path: str, kind: str, shape: Shape, new: Properties) -> Iterator[Route]:
    """Yield the routes that all kinds of objects have."""
    plural = re.sub("YS$", "IES", f"{kind}S")
    scope, prefix = "", ""
    if "{schema}" in path:
        scope, prefix = "IN SCHEMA {database}.{schema}", "{database}.{schema}."
    elif "{database}" in path:
        scope, prefix = "IN DATABASE {database}", "{database}."
    create = f"{{create}} {{kind}} {kind} {{if_not_exists}} {prefix}{{new}} {{properties}}"
    yield Route("GET", path, f"SHOW {plural} {{like}} {scope} {{listing}}", many(shape))
    yield Route("POST", path, create, properties=new)
    yield Route("GET", path + "/{name}", f"SHOW {plural} {{exactly}} {scope}", one(shape))
    yield Route("DELETE", path + "/{name}", f"DROP {kind} {{if_exists}} {prefix}{{name}}")


_SCHEMA = "databases/{database}/schemas/{schema}"
_SERVICES = _SCHEMA + "/services"
_SERVICE = "{database}.{schema}.{name}"
_JOB = (
    "EXECUTE JOB SERVICE IN COMPUTE POOL {compute_pool} FROM {specification} NAME = {database}.{schema}.{new} "
    "{asynchronous} {properties}"
)
_GRANTS = "grants/{grantee_type}/{grantee_name}/{securable_type}/{securable_name}/privileges"

ROUTES = (
    Route("GET", "compute-pools/instance-families", "SHOW COMPUTE POOL INSTANCE FAMILIES", many(shapes.FAMILY)),
    Route("GET", "compute-pools/{name}", "DESCRIBE COMPUTE POOL {name}", one(shapes.POOL)),
    *_collection("compute-pools", "COMPUTE POOL", shapes.POOL, shapes.NEW_POOL),
    Route("POST", "compute-pools/{name}:resume", "ALTER COMPUTE POOL {name} RESUME"),
    Route("POST", "compute-pools/{name}:suspend", "ALTER COMPUTE POOL {name} SUSPEND"),
    Route("POST", "compute-pools/{name}:stop-?all-?services", "ALTER COMPUTE POOL {name} STOP ALL"),
    *_collection("warehouses", "WAREHOUSE", shapes.WAREHOUSE, shapes.NEW_WAREHOUSE),
    Route("POST", "warehouses/{name}:resume", "ALTER WAREHOUSE {if_exists} {name} RESUME"),
    Route("POST", "warehouses/{name}:suspend", "ALTER WAREHOUSE {if_exists} {name} SUSPEND"),
    *_collection("roles", "ROLE", shapes.ROLE, shapes.NEW_ROLE),
    Route("POST", _GRANTS, "GRANT {granted} TO {grantee_type} {grantee_name} {grant_option}", properties=shapes.GRANT),
    Route("DELETE", _GRANTS + "/{privilege}", "REVOKE {granted} FROM {grantee_type} {grantee_name} {cascade}"),
    Route(
        "GET",
        "grants/{grantee_type}/{grantee_name}",
        "SHOW GRANTS TO {grantee_type} {grantee_name}",
        many(shapes.GRANTED),
    ),
    *(
        Route("POST", f"{who}s/{{name}}/{path}", f"{statement} {who.upper()} {{name}} {end}", properties=shapes.GRANT)
        for who in ("role", "user")
        for path, statement, end in (
            ("grants", "GRANT {granted} TO", "{grant_option}"),
            ("grants:revoke", "REVOKE {granted} FROM", "{cascade}"),
        )
    ),
    Route("GET", "roles/{name}/grants-of", "SHOW GRANTS OF ROLE {name}", many(shapes.GRANT_OF)),
    *_collection("databases", "DATABASE", shapes.DATABASE, shapes.NEW_DATABASE),
    *_collection("databases/{database}/schemas", "SCHEMA", shapes.SCHEMA, shapes.NEW_SCHEMA),
    *_collection(_SCHEMA + "/stages", "STAGE", shapes.STAGE, shapes.NEW_STAGE),
    Route("GET", _SCHEMA + "/stages/{name}/files", "LIST @{database}.{schema}.{name} {pattern}", many(shapes.FILE)),
    *_collection(_SCHEMA + "/image-repositories", "IMAGE REPOSITORY", shapes.REPOSITORY, shapes.NEW_REPOSITORY),
    Route(
        "GET",
        _SCHEMA + "/image-repositories/{name}/images",
        "SHOW IMAGES IN IMAGE REPOSITORY {database}.{schema}.{name}",
        many(shapes.IMAGE),
    ),
    Route("POST", _SCHEMA + "/functions", "CREATE FUNCTION {new}"),
    # Services: those that run for ever are refused by their statement.
    Route("POST", _SERVICES + ":execute-job", _JOB, properties=shapes.JOB),
    Route("POST", _SERVICES, "CREATE SERVICE {database}.{schema}.{new}"),
    Route("POST", _SERVICES + "/{name}:resume", f"ALTER SERVICE {{if_exists}} {_SERVICE} RESUME"),
    Route("POST", _SERVICES + "/{name}:suspend", f"ALTER SERVICE {{if_exists}} {_SERVICE} SUSPEND"),
    Route(
        "GET",
        _SERVICES,
        "SHOW SERVICES {like} IN SCHEMA {database}.{schema} {listing}",
        many(shapes.SERVICE),
        each=f"DESCRIBE SERVICE {_SERVICE}",
    ),
    Route("GET", _SERVICES + "/{name}", f"DESCRIBE SERVICE {_SERVICE}", one(shapes.SERVICE)),
    Route("DELETE", _SERVICES + "/{name}", f"DROP SERVICE {{if_exists}} {_SERVICE}"),
    Route("GET", _SERVICES + "/{name}/status", "SELECT {status}", cell("system$get_service_status")),
    Route("GET", _SERVICES + "/{name}/logs", "SELECT {logs}", cell("system$get_service_logs")),
    *(
        Route("GET", f"{_SERVICES}/{{name}}/{what}", f"SHOW {statement} IN SERVICE {_SERVICE}", many(shape))
        for what, statement, shape in (
            ("containers", "SERVICE CONTAINERS", shapes.CONTAINER),
            ("instances", "SERVICE INSTANCES", shapes.INSTANCE),
            ("endpoints", "ENDPOINTS", shapes.ENDPOINT),
            ("roles", "ROLES", shapes.SERVICE_ROLE),
        )
    ),
)

# The kinds of objects in Snowflake's specifications: those of the account, of a database, and of a schema.
_KINDS = (
    {
        "accounts", "api-integrations", "catalog-integrations", "compute-pools", "cortex", "databases",
        "external-volumes", "grants", "managed-accounts", "network-policies", "notification-integrations", "results",
        "roles", "statements", "users", "warehouses",
    },
    {"database-roles", "schemas"},
    {
        "alerts", "artifact-repositories", "cortex-search-services", "dynamic-tables", "event-tables", "functions",
        "iceberg-tables", "image-repositories", "network-rules", "notebooks", "password-policies", "pipes",
        "procedures", "secrets", "sequences", "services", "stages", "streamlits", "streams", "tables", "tags", "tasks",
        "user-defined-functions", "views",
    },
)  # fmt: skip
_KIND = re.compile(r"(?:databases/[^/]+/(?:schemas/[^/]+/)?)?([^/:]+)")


def is_of_snowflake(path: str) -> bool:
    """Return whether Snowflake has the kind of object that a path names: clients try where a kind belongs."""
    matched = _KIND.match(path)
    return matched is not None and matched[1] in _KINDS[path[: matched.start(1)].count("/") // 2]
