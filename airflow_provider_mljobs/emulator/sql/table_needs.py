"""The privileges that a statement for the SQL engine needs on tables, views and schemas.

Source: https://docs.snowflake.com/en/user-guide/security-access-control-privileges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_mljobs.emulator.parsing import QualifiedName

_OWNERSHIP = ("OWNERSHIP",)
_TARGETS: tuple[tuple[type[exp.Expr], tuple[str, ...]], ...] = (
    (exp.Insert, ("INSERT",)),
    (exp.Update, ("UPDATE",)),
    (exp.Delete, ("DELETE",)),
    (exp.TruncateTable, ("TRUNCATE",)),
    (exp.Drop, _OWNERSHIP),
    (exp.Alter, _OWNERSHIP),
    (exp.Comment, _OWNERSHIP),
)


@dataclass(frozen=True)
class TableNeed:
    """A privilege that a statement needs.

    :param table: the table or view, with database and schema.
    :param privilege: on the table, or on its schema for CREATE …; empty for any privilege at all.
    """

    table: QualifiedName
    privilege: str

    @property
    def creates(self) -> bool:
        """Whether the privilege is needed on the schema."""
        return self.privilege.startswith("CREATE ")


def table_needs(
    expression: exp.Expr, full_name: Callable[[exp.Table], QualifiedName], *, temporary: bool
) -> Iterator[TableNeed]:
    """Yield the privileges that a statement needs.

    :param full_name: completes a name with the session's database and schema.
    :param temporary: whether the statement creates a temporary object, which needs none.
    """
    targets = list(_targets(expression))
    for table in targets:
        for privilege in _on_target(expression, temporary=temporary):
            yield TableNeed(full_name(table), privilege)
    if isinstance(expression, exp.Show):
        return
    local = {cte.alias.upper() for cte in expression.find_all(exp.CTE)}
    for table in expression.find_all(exp.Table):
        is_local = not table.args.get("db") and table.name.upper() in local
        if isinstance(table.this, exp.Identifier) and not is_local and all(table is not target for target in targets):
            yield TableNeed(full_name(table), "" if isinstance(expression, exp.Describe) else "SELECT")


def _targets(expression: exp.Expr) -> Iterator[exp.Table]:
    """Yield the tables that a statement changes."""
    if not isinstance(expression, (exp.Create, exp.Merge, *(kind for kind, _ in _TARGETS))):
        return
    places = expression.expressions if isinstance(expression, exp.TruncateTable) else [expression.this]
    for place in expression.args.get("tables") or places:
        table = place.this if isinstance(place, exp.Schema) else place
        if isinstance(table, exp.Table):
            yield table


def _on_target(expression: exp.Expr, *, temporary: bool) -> tuple[str, ...]:
    if isinstance(expression, exp.Create):
        if temporary:
            return ()
        create = f"CREATE {expression.kind}"
        return (create, *_OWNERSHIP) if expression.args.get("replace") else (create,)
    if isinstance(expression, exp.Merge):
        thens = [when.args["then"] for when in expression.args["whens"].expressions]
        return tuple(sorted({"DELETE" if isinstance(then, exp.Var) else type(then).__name__.upper() for then in thens}))
    if isinstance(expression, exp.Insert) and expression.args.get("overwrite"):
        return ("DELETE", "INSERT")
    return next((privileges for kind, privileges in _TARGETS if isinstance(expression, kind)), ())
