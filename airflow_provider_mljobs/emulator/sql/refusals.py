"""Refusals: statements that DuckDB would run differently from Snowflake, or that Snowflake doesn't have."""

from __future__ import annotations

import re

from sqlglot import exp

from airflow_provider_mljobs.emulator.errors import not_supported, syntax_error, unknown_function

_STATEMENTS = (
    exp.Query, exp.Values, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Alter,
    exp.TruncateTable, exp.Show, exp.Describe, exp.Commit, exp.Rollback, exp.Transaction, exp.Comment,
)  # fmt: skip
# With these words the kind of an object has two, as in EXTERNAL FUNCTION.
_ADJECTIVES = frozenset({
    "AGGREGATION", "API", "AUTHENTICATION", "CATALOG", "DATA", "DYNAMIC", "EVENT", "EXTERNAL", "FAILOVER", "FILE",
    "GIT", "MANAGED", "MASKING", "MATERIALIZED", "NETWORK", "NOTIFICATION", "PASSWORD", "REPLICATION", "RESOURCE",
    "ROW", "SECURITY", "SESSION", "STORAGE",
})  # fmt: skip
_KINDS = {"TABLE", "VIEW", "SEQUENCE"}
_SHOWN = {"FUNCTIONS", "PROCEDURES", "USERS"}
_DESCRIBED = {"TABLE", "VIEW"}
# DuckDB's functions that reach files, settings or other SQL; none of them exists in Snowflake.
_FORBIDDEN = re.compile(
    r"READ_\w+|DUCKDB_\w+|PRAGMA_\w+|\w+_SCAN|GLOB|SNIFF_CSV|QUERY|QUERY_TABLE|GETENV|CURRENT_SETTING|SUMMARY|"
    r"PARQUET_\w+|WHICH_SECRET|MLJ_\w+|_FS_\w+|SETSEED|REPEAT_ROW|CHECKPOINT|FORCE_CHECKPOINT|ICEBERG_\w+|DELTA_\w+"
)
# https://docs.snowflake.com/en/sql-reference/info-schema, without the views that fakesnow has.
_MISSING_VIEWS = frozenset({
    "APPLICABLE_ROLES", "APPLICATION_CONFIGURATIONS", "APPLICATION_SPECIFICATIONS", "CHECK_CONSTRAINTS",
    "CLASS_INSTANCE_FUNCTIONS", "CLASS_INSTANCE_PROCEDURES", "CLASS_INSTANCES", "CLASSES", "CORTEX_SEARCH_SERVICE",
    "CORTEX_SEARCH_SERVICES", "CORTEX_SEARCH_SERVICE_SCORING_PROFILES", "CURRENT_PACKAGES_POLICY", "ELEMENT_TYPES",
    "ENABLED_ROLES", "EVENT_TABLES", "EXTERNAL_TABLES", "FIELDS", "FILE_FORMATS", "FUNCTIONS", "HYBRID_TABLES",
    "INDEXES", "INDEX_COLUMNS", "INFORMATION_SCHEMA_CATALOG_NAME", "LISTINGS", "MODEL_VERSIONS", "OBJECT_PRIVILEGES",
    "PACKAGES", "PIPES", "PROCEDURES", "REPLICATION_DATABASES", "REPLICATION_GROUPS", "SEMANTIC_DIMENSIONS",
    "SEMANTIC_FACTS", "SEMANTIC_METRICS", "SEMANTIC_RELATIONSHIPS", "SEMANTIC_TABLES", "SEMANTIC_VIEWS", "SEQUENCES",
    "SERVICES", "SHARES", "STAGES", "TABLE_PRIVILEGES", "TABLE_STORAGE_METRICS", "TYPES", "USAGE_PRIVILEGES",
})  # fmt: skip
_REFUSED_PROPERTIES = {
    exp.DynamicProperty: "a dynamic table",
    exp.ExternalProperty: "an external table",
    exp.IcebergProperty: "an Iceberg table",
    exp.MaterializedProperty: "a materialized view",
}


def refuse(expression: exp.Expr, sql: str) -> None:
    """Raise if a statement is not for the SQL engine."""
    if isinstance(expression, (exp.Alias, exp.Column)):
        # sqlglot reads text without a leading keyword as an expression.
        raise syntax_error(sql, len(sql) - len(sql.lstrip()))
    if not isinstance(expression, _STATEMENTS):
        raise not_supported(_what(expression, sql))
    _refuse_kind(expression)
    for node in expression.walk():
        _refuse_node(node)


def _what(expression: exp.Expr, sql: str) -> str:
    """Name a statement: by its first words, and a call by the whole name of the procedure."""
    if not isinstance(expression, exp.Command):
        return expression.key.upper()
    called = re.match(r'\s*CALL\s+([\w$."]+)', sql, re.IGNORECASE)
    if called:
        return f"CALL {called[1]}"
    verb, *words = (word.upper() for word in re.findall(r"\w+", sql) if word.upper() not in {"OR", "REPLACE"})
    return " ".join([verb, *words[: 2 if words[:1] and words[0] in _ADJECTIVES else 1]])


def _refuse_kind(expression: exp.Expr) -> None:
    kind = str(expression.args.get("kind") or "").upper()
    if isinstance(expression, (exp.Create, exp.Drop, exp.Alter)) and kind not in _KINDS:
        raise not_supported(f"{expression.key.upper()} {kind}")
    if isinstance(expression, exp.Describe) and kind not in _DESCRIBED:
        raise not_supported(f"DESCRIBE {kind}".strip())
    if isinstance(expression, exp.Show) and expression.name.upper() not in _SHOWN:
        raise not_supported(f"SHOW {expression.name.upper()}")
    if isinstance(expression, exp.Transaction) and any(
        "name" not in mode for mode in expression.args.get("modes") or ()
    ):
        raise not_supported("Snowflake Scripting")
    if isinstance(expression, exp.Alter):
        _refuse_alteration(expression)


def _refuse_alteration(expression: exp.Alter) -> None:
    for action in expression.args.get("actions") or ():
        if isinstance(action, (exp.Command, exp.SwapTable)):
            raise not_supported(f"ALTER {expression.args.get('kind')} … {action.sql(dialect='snowflake')}")


def _refuse_node(node: exp.Expr) -> None:
    if isinstance(node, exp.Property) and type(node) in _REFUSED_PROPERTIES:
        raise not_supported(_REFUSED_PROPERTIES[type(node)])
    if isinstance(node, exp.Table):
        _refuse_table(node)
    elif isinstance(node, exp.Anonymous) and _FORBIDDEN.fullmatch(node.name.upper()):
        raise unknown_function(node.name.upper())
    elif isinstance(node, (exp.ReadCSV, exp.ReadParquet)):
        raise unknown_function(node.key.upper())
    elif isinstance(node, exp.CurrentUser):
        raise not_supported("CURRENT_USER without parentheses")


def _refuse_table(table: exp.Table) -> None:
    if table.args.get("when") is not None:
        raise not_supported("Time Travel")
    if table.args.get("changes") is not None:
        raise not_supported("CHANGES")
    if table.db.upper() == "INFORMATION_SCHEMA" and table.name.upper() in _MISSING_VIEWS:
        raise not_supported(f"INFORMATION_SCHEMA.{table.name.upper()}")
    if any(part.upper().startswith("_FS_") for part in (table.catalog, table.db)):
        raise not_supported(f"the name {table.catalog or table.db!r}, which fakesnow uses,")
    if "/" in table.name:
        # DuckDB would read a file of this name.
        raise not_supported(f"{table.name!r} as the name of a table")
    if isinstance(table.this, exp.Literal):
        raise not_supported(f"reading {table.this.this!r} as a table")
    if isinstance(table.this, exp.Var):
        raise not_supported("reading a stage in a query")
