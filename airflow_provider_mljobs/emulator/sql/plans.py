"""Plans of statements: the tree for the engine, its kind, and the columns of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlglot import exp

from airflow_provider_mljobs.emulator.errors import not_supported
from airflow_provider_mljobs.emulator.parsing import QualifiedName
from airflow_provider_mljobs.emulator.results import Column
from airflow_provider_mljobs.emulator.sql.bridge import parse
from airflow_provider_mljobs.emulator.sql.refusals import refuse
from airflow_provider_mljobs.emulator.sql.rewrites import before_translation
from airflow_provider_mljobs.emulator.sql.table_needs import TableNeed, table_needs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.results import StatementKind
    from airflow_provider_mljobs.emulator.sessions import Session
    from airflow_provider_mljobs.emulator.sql.preparation import Prepared

Action = Literal["begin", "commit", "rollback", "create", "create temporary", "drop", ""]

_KINDS: tuple[tuple[type[exp.Expr], StatementKind], ...] = (
    (exp.Insert, "insert"),
    (exp.Update, "update"),
    (exp.Delete, "delete"),
    (exp.Merge, "merge"),
    (exp.Show, "show"),
    (exp.Describe, "show"),
    (exp.Query, "select"),
    (exp.Values, "select"),
    (exp.Create, "ddl"),
    (exp.Drop, "ddl"),
    (exp.Alter, "ddl"),
    (exp.TruncateTable, "ddl"),
    (exp.Comment, "ddl"),
)
_ACTIONS: tuple[tuple[type[exp.Expr], Action], ...] = (
    (exp.Transaction, "begin"),
    (exp.Commit, "commit"),
    (exp.Rollback, "rollback"),
    (exp.Create, "create"),
    (exp.Drop, "drop"),
)


def _count(name: str) -> Column:
    return Column(name, "fixed", precision=38, scale=0)


_COLUMNS: dict[StatementKind, Sequence[Column]] = {
    "insert": (_count("number of rows inserted"),),
    "update": (_count("number of rows updated"), _count("number of multi-joined rows updated")),
    "delete": (_count("number of rows deleted"),),
    "ddl": (Column("status"),),
    "other": (Column("status"),),
}


@dataclass(frozen=True)
class Plan:
    """A statement that is ready to run.

    :param columns: the columns of its answer where they don't depend on the data; ``None`` for queries.
    :param action: its effect on transactions or on the catalogue.
    :param target: the table or view that it creates or drops, with database and schema.
    :param if_exists: whether it is a DROP IF EXISTS.
    :param computes: whether it needs a warehouse.
    :param needs: the privileges that it needs.
    :param target_kind: the kind of the target: TABLE, VIEW or SEQUENCE.
    :param if_not_exists: whether it is a CREATE IF NOT EXISTS.
    :param renamed: of ALTER … RENAME the old name and the new one.
    """

    expression: exp.Expr
    kind: StatementKind
    binds: Mapping[str, object]
    columns: Sequence[Column] | None
    action: Action
    target: QualifiedName | None
    if_exists: bool = False
    computes: bool = False
    needs: Sequence[TableNeed] = ()
    target_kind: str = ""
    if_not_exists: bool = False
    renamed: tuple[QualifiedName, QualifiedName] | None = None

    @property
    def writes(self) -> bool:
        """Whether it changes data or objects."""
        return self.kind not in {"select", "show", "other"}


def plan(context: Context, prepared: Prepared) -> Plan:
    """Parse a statement and rewrite it for the engine; raises if it isn't supported."""
    expression = parse(prepared.text)
    refuse(expression, prepared.text)
    kind: StatementKind = next((kind for node, kind in _KINDS if isinstance(expression, node)), "other")
    action: Action = next((action for node, action in _ACTIONS if isinstance(expression, node)), "")
    target = _target(context.session, expression)
    temporary = (
        isinstance(expression, exp.Create) and expression.kind in {"TABLE", "VIEW"} and _is_temporary(expression)
    )
    if temporary:
        action = "create temporary"
        _claim(context.session, target)
    computes = _computes(expression, kind)
    needs = tuple(table_needs(expression, lambda table: _full_name(context.session, table), temporary=temporary))
    target_kind = str(expression.args.get("kind") or "").upper()
    if_not_exists = isinstance(expression, exp.Create) and bool(expression.args.get("exists"))
    renamed = _renamed(context.session, expression)
    expression = before_translation(expression, prepared.titles)
    _resolve_temporary(context.session, expression, temporary=temporary)
    columns = _merge_columns(expression) if isinstance(expression, exp.Merge) else _COLUMNS.get(kind)
    if_exists = isinstance(expression, exp.Drop) and bool(expression.args.get("exists"))
    return Plan(
        expression,
        kind,
        prepared.binds,
        columns,
        action,
        target,
        if_exists,
        computes,
        needs,
        target_kind,
        if_not_exists,
        renamed,
    )


def _computes(expression: exp.Expr, kind: StatementKind) -> bool:
    """Return whether a warehouse runs a statement: it changes rows, or selects from anything."""
    if isinstance(expression, exp.Create):
        return expression.kind == "TABLE" and isinstance(expression.expression, exp.Query)
    if kind == "select":
        return expression.find(exp.From) is not None
    return kind in {"insert", "update", "delete", "merge"}


def _is_temporary(expression: exp.Create) -> bool:
    return expression.find(exp.TemporaryProperty) is not None


def _merge_columns(expression: exp.Merge) -> list[Column]:
    whens = expression.args["whens"].expressions
    kinds = {type(when.args["then"]).__name__.upper() for when in whens}
    words = {kind if kind != "VAR" else "DELETE" for kind in kinds}
    return [_count(f"number of rows {word.lower()}{'d' if word.endswith('E') else 'ed'}") for word in sorted(words)]


def _target(session: Session, expression: exp.Expr) -> QualifiedName | None:
    """Return the table or view that a statement creates or drops."""
    if not isinstance(expression, (exp.Create, exp.Drop)):
        return None
    tables = expression.args.get("tables")
    place = tables[0] if tables else expression.this
    table = place.this if isinstance(place, exp.Schema) else place
    return _full_name(session, table) if isinstance(table, exp.Table) else None


def _renamed(session: Session, expression: exp.Expr) -> tuple[QualifiedName, QualifiedName] | None:
    """Return the old and the new name of a table or view that a statement renames."""
    if not isinstance(expression, exp.Alter) or not isinstance(expression.this, exp.Table):
        return None
    actions = expression.args.get("actions") or ()
    new = next((action.this for action in actions if isinstance(action, exp.AlterRename)), None)
    return (_full_name(session, expression.this), _full_name(session, new)) if isinstance(new, exp.Table) else None


def _full_name(session: Session, table: exp.Table) -> QualifiedName:
    database = _stored(table.args.get("catalog")) or session.database
    schema = _stored(table.args.get("db")) or session.schema
    return QualifiedName(_stored(table.this) or "", schema, database)


def _stored(identifier: exp.Expr | None) -> str | None:
    if not isinstance(identifier, exp.Identifier):
        return None
    return str(identifier.this) if identifier.quoted else str(identifier.this).upper()


def _claim(session: Session, target: QualifiedName | None) -> None:
    """Refuse a second temporary table of the same name in another schema, which DuckDB would take for the first."""
    owner = session.engine.temporary.get(target.name) if target else None
    if target and owner not in {None, (target.database, target.schema)}:
        raise not_supported("temporary tables of the same name in two schemas of one session")


def _resolve_temporary(session: Session, expression: exp.Expr, *, temporary: bool) -> None:
    """Direct each table to the temporary table of its name in that schema, or else to the permanent one."""
    names = session.engine.temporary
    target = expression.this.this if isinstance(expression.this, exp.Schema) else expression.this
    for table in list(expression.find_all(exp.Table)):
        if not isinstance(table.this, exp.Identifier) or table is _shown(expression):
            continue
        name = _full_name(session, table)
        if (temporary and table is target) or names.get(name.name) == (name.database, name.schema):
            table.set("db", None)
            table.set("catalog", None)
        elif name.name in names and not _is_local(expression, table) and name.database and name.schema:
            table.set("catalog", exp.to_identifier(name.database, quoted=True))
            table.set("db", exp.to_identifier(name.schema, quoted=True))


def _shown(expression: exp.Expr) -> exp.Expr | None:
    return expression.args.get("scope") if isinstance(expression, exp.Show) else None


def _is_local(expression: exp.Expr, table: exp.Table) -> bool:
    """Return whether a bare name may be that of a common table expression."""
    return not table.args.get("db") and any(
        cte.alias.upper() == table.name.upper() for cte in expression.find_all(exp.CTE)
    )
