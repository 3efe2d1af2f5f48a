"""Warehouses: names with Snowflake's answers, and rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grants import Securable
from airflow_provider_mljobs.emulator.access.needs import creates, owned
from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist
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


class Warehouses:
    """The statements about warehouses, which are names.

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
                *(
                    Statement(
                        ("CREATE", *replace, "WAREHOUSE"),
                        self.create_warehouse,
                        _STATUS,
                        f"CREATE [ OR REPLACE ] WAREHOUSE {warehouse}",
                        creates("WAREHOUSE", *replace),
                    )
                    for replace in ((), ("OR", "REPLACE"))
                ),
                Statement(
                    ("ALTER", "WAREHOUSE"),
                    self.alter_warehouse,
                    _STATUS,
                    "ALTER WAREHOUSE [ IF EXISTS ] <name> …  (no effect)",
                ),
                Statement(
                    ("DROP", "WAREHOUSE"),
                    self.drop_warehouse,
                    _STATUS,
                    "DROP WAREHOUSE [ IF EXISTS ] <name>",
                    owned("WAREHOUSE"),
                ),
                Statement(("SHOW", "WAREHOUSES"), self.show_warehouses, _WAREHOUSES, "SHOW WAREHOUSES [ LIKE '…' ]"),
            )
        )

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
        context.session.rights.created(Securable("WAREHOUSE", (name,)))
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
        context.session.rights.require(Securable("WAREHOUSE", (name,)), "MODIFY", "OPERATE")
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
            context.session.rights.dropped(Securable("WAREHOUSE", (name,)))
            return Result.status(f"{name} successfully dropped.")
        if not if_exists:
            raise does_not_exist("Warehouse", name)
        return Result.status(f"Drop statement executed successfully ({name} already dropped).")

    def show_warehouses(self, context: Context, parser: Parser) -> Result:
        """Run ``SHOW WAREHOUSES``: all are started and idle."""
        listing = parse_listing(context, parser, self._catalog, levels=0)
        rights, warehouses = context.session.rights, self._catalog.warehouses()
        warehouses = {name: row for name, row in warehouses.items() if rights.sees(Securable("WAREHOUSE", (name,)))}
        rows = [self._warehouse(context.session, name, *warehouses[name]) for name in listing.names(warehouses)]
        return Result(_WAREHOUSES, rows, statement="show")

    def _warehouse(self, session: Session, name: str, created: object, comment: object) -> tuple[object, ...]:
        current = "Y" if name == session.warehouse else "N"
        owner = session.rights.owner_of(Securable("WAREHOUSE", (name,)))
        return (
            name, "STARTED", "STANDARD", "X-Small", 1, 1, 1, 0, 0, "N", current, 600, "true", "100", "0", "0", "0",
            created, created, created, owner, comment, "false", 8, "null", 0, 0, 0, 0, "0", "STANDARD",
            None, "ROLE", None,
        )  # fmt: skip
