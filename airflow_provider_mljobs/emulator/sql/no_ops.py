"""Statements without an effect, with Snowflake's answers: rights, roles, and warehouses, which are names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist
from airflow_provider_mljobs.emulator.identity import ROLE
from airflow_provider_mljobs.emulator.listing import parse_listing
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sessions import Session
    from airflow_provider_mljobs.emulator.sql.catalog import Catalog

_STATUS = (Column("status"),)
_DONE = "Statement executed successfully."


def _text(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


def _number(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "fixed", precision=38, scale=0) for name in names)


def _time(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "timestamp_ltz") for name in names)


_WAREHOUSES = (
    *_text("name", "state", "type", "size"),
    *_number("min_cluster_count", "max_cluster_count", "started_clusters", "running", "queued"),
    *_text("is_default", "is_current"),
    *_number("auto_suspend"),
    *_text("auto_resume", "available", "provisioning", "quiescing", "other"),
    *_time("created_on", "resumed_on", "updated_on"),
    *_text("owner", "comment", "enable_query_acceleration"),
    *_number("query_acceleration_max_scale_factor"),
    *_text("resource_monitor"),
    *_number("actives", "pendings", "failed", "suspended"),
    *_text("uuid", "scaling_policy", "budget", "owner_role_type", "resource_constraint"),
)
_ROLES = (
    *_time("created_on"),
    *_text("name", "is_default", "is_current", "is_inherited"),
    *_number("assigned_to_users", "granted_to_roles", "granted_roles"),
    *_text("owner", "comment"),
)


def done(context: Context, parser: Parser) -> Result:
    """Accept a statement without an effect, such as GRANT."""
    del context, parser
    return Result.status(_DONE)


def create_role(context: Context, parser: Parser) -> Result:
    """Accept ``CREATE ROLE``; every session may do everything, so roles are not kept."""
    del context
    parser.accept("IF", "NOT", "EXISTS")
    return Result.status(f"Role {parser.qualified_name().name} successfully created.")


def drop_role(context: Context, parser: Parser) -> Result:
    """Accept ``DROP ROLE``."""
    del context
    parser.accept("IF", "EXISTS")
    return Result.status(f"{parser.qualified_name().name} successfully dropped.")


class NoOps:
    """Rights and roles, which have no effect here, and warehouses, which are names.

    :param catalog: stores the warehouses.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @property
    def extension(self) -> Extension:
        """The statements."""
        warehouse = "[ IF NOT EXISTS ] <name> [ <property> = <value> … ]  (a name only)"
        return Extension(
            statements=(
                Statement(("GRANT",), done, _STATUS, "GRANT … TO …  (no effect: every session may do everything)"),
                Statement(("REVOKE",), done, _STATUS, "REVOKE … FROM …  (no effect)"),
                *(
                    statement
                    for replace in ((), ("OR", "REPLACE"))
                    for statement in (
                        Statement(
                            ("CREATE", *replace, "ROLE"),
                            create_role,
                            _STATUS,
                            "CREATE [ OR REPLACE ] ROLE <name>  (not kept)",
                        ),
                        Statement(
                            ("CREATE", *replace, "WAREHOUSE"),
                            self.create_warehouse,
                            _STATUS,
                            f"CREATE [ OR REPLACE ] WAREHOUSE {warehouse}",
                        ),
                    )
                ),
                Statement(("DROP", "ROLE"), drop_role, _STATUS, "DROP ROLE [ IF EXISTS ] <name>  (no effect)"),
                Statement(("SHOW", "ROLES"), self.show_roles, _ROLES, "SHOW ROLES [ LIKE '…' ]"),
                Statement(
                    ("ALTER", "WAREHOUSE"),
                    self.alter_warehouse,
                    _STATUS,
                    "ALTER WAREHOUSE [ IF EXISTS ] <name> …  (no effect)",
                ),
                Statement(("DROP", "WAREHOUSE"), self.drop_warehouse, _STATUS, "DROP WAREHOUSE [ IF EXISTS ] <name>"),
                Statement(("SHOW", "WAREHOUSES"), self.show_warehouses, _WAREHOUSES, "SHOW WAREHOUSES [ LIKE '…' ]"),
            )
        )

    def show_roles(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW ROLES``: the account's one role and the session's."""
        listing = parse_listing(context, parser, self._catalog, levels=0)
        current = context.session.role
        rows = [
            (
                None,
                name,
                "Y" if name == ROLE else "N",
                "Y" if name == current else "N",
                "N",
                1,
                0,
                0,
                "",
                "",
            )
            for name in listing.names({ROLE, current})
        ]
        return Result(_ROLES, rows, statement="show")

    def create_warehouse(self, context: Context, parser: Parser) -> Result:
        """Run ``CREATE WAREHOUSE``: store its name and ignore its properties."""
        or_replace = parser.tokens[1].keyword == "OR"
        if_not_exists = parser.accept("IF", "NOT", "EXISTS")
        name = parser.qualified_name().name
        if name in self._catalog.warehouses() and not or_replace:
            if not if_not_exists:
                raise already_exists(name)
            return Result.status(f"{name} already exists, statement succeeded.")
        self._catalog.remember("WAREHOUSE", "", "", name, again=True)
        context.session.warehouse = name
        return Result.status(f"Warehouse {name} successfully created.")

    def alter_warehouse(self, context: Context, parser: Parser) -> Result:
        """Accept ``ALTER WAREHOUSE`` of one that exists."""
        if_exists = parser.accept("IF", "EXISTS")
        if parser.current.keyword in {"SUSPEND", "RESUME", "SET", "UNSET"}:
            name = context.session.warehouse or ""
        else:
            name = parser.qualified_name().name
        if name not in self._catalog.warehouses() and not if_exists:
            raise does_not_exist("Warehouse", name)
        return Result.status(_DONE)

    def drop_warehouse(self, context: Context, parser: Parser) -> Result:
        """Run ``DROP WAREHOUSE``."""
        if_exists = parser.accept("IF", "EXISTS")
        name = parser.qualified_name().name
        parser.expect_end()
        if name in self._catalog.warehouses():
            self._catalog.forget("WAREHOUSE", "", "", name)
            if context.session.warehouse == name:
                context.session.warehouse = None
            return Result.status(f"{name} successfully dropped.")
        if not if_exists:
            raise does_not_exist("Warehouse", name)
        return Result.status(f"Drop statement executed successfully ({name} already dropped).")

    def show_warehouses(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW WAREHOUSES``: all are started and idle."""
        listing = parse_listing(context, parser, self._catalog, levels=0)
        warehouses = self._catalog.warehouses()
        rows = [self._warehouse(context.session, name, *warehouses[name]) for name in listing.names(warehouses)]
        return Result(_WAREHOUSES, rows, statement="show")

    def _warehouse(self, session: Session, name: str, created: object, comment: object) -> tuple[object, ...]:
        current = "Y" if name == session.warehouse else "N"
        return (
            name, "STARTED", "STANDARD", "X-Small", 1, 1, 1, 0, 0, "N", current, 600, "true", "100", "0", "0", "0",
            created, created, created, ROLE, comment, "false", 8, "null", 0, 0, 0, 0, "0", "STANDARD",
            None, "ROLE", None,
        )  # fmt: skip
