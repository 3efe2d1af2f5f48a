"""Tables in FROM: parentheses around them, and the table functions that sqlglot and fakesnow leave alone."""

from __future__ import annotations

import secrets

from sqlglot import exp

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported

# In a real account, the rows of a GENERATOR with only a TIMELIMIT depend on the system's speed.
ROWS_PER_SECOND = 100_000
# Per session, in DuckDB's SQL. An empty delimiter splits nothing in Snowflake.
MACROS = (
    """CREATE TEMP MACRO mlj_split_to_table(s, d, number) AS TABLE
         SELECT unnest(list_transform(CASE WHEN d = '' THEN [s] ELSE string_split(s, d) END,
           lambda mlj_part, mlj_index: struct_pack(SEQ := number, INDEX := mlj_index, VALUE := mlj_part)
         ), recursive := true)""",
    "CREATE TEMP MACRO mlj_sequence() AS row_number() OVER () - 1",
    """CREATE TEMP MACRO mlj_wrapped(n, half, sign) AS
         CASE WHEN sign = 0 THEN n % half ELSE (n + half) % (2 * half) - half END""",
)
# Where a sequence starts again: behind the largest number of so many bytes.
_HALVES: dict[type[exp.Expr], int] = {exp.Seq1: 1 << 7, exp.Seq2: 1 << 15, exp.Seq4: 1 << 31}
_CONDITIONS = ("on", "using", "method", "side", "kind")
_TABLES = (exp.Table, exp.TableFromRows, exp.Lateral, exp.Values)
_ROW_BY_ROW = (exp.Explode, exp.SplitToTable)


def without_parentheses(expression: exp.Expr) -> None:
    """Remove the parentheses around tables in FROM; those around queries and joins stay.

    DuckDB reads neither table functions nor commas in them; sqlglot writes a join without a condition as a comma.
    """
    for join in expression.find_all(exp.Join):
        if not isinstance(join.parent, exp.Select) and not any(join.args.get(name) for name in _CONDITIONS):
            join.set("kind", "CROSS")
    for node in reversed(list(expression.find_all(exp.Subquery))):
        table = node.this
        if not isinstance(table, _TABLES) or not isinstance(node.parent, (exp.From, exp.Join, exp.Subquery)):
            continue
        if table.args.get("joins"):
            continue
        for name, value in node.args.items():
            if name != "this" and value:
                table.set(name, value)
        node.replace(table)


def generator(node: exp.Expr) -> None:
    """Set the number of rows of a GENERATOR and hide its column from ``*``: in Snowflake it has none.

    Without limits it has no rows, with only a TIMELIMIT a number by the second.
    """
    rows, seconds = (_limit(node, name) for name in ("rowcount", "timelimit"))
    if rows is None:
        per_second = exp.Literal.number(ROWS_PER_SECOND)
        rows = exp.Literal.number(0) if seconds is None else exp.Mul(this=seconds, expression=per_second)
    node.set("rowcount", rows)
    node.set("timelimit", None)
    table, select = node.parent, node.find_ancestor(exp.Select)
    if isinstance(table, exp.TableFromRows) and select is not None:
        column = exp.to_identifier(f"GENERATED_{secrets.token_hex(8)}".upper())
        _name_only_column(table, column)
        for star in select.expressions:
            if isinstance(star, exp.Star):
                star.set("except_", [*(star.args.get("except_") or ()), column.copy()])


def _name_only_column(table: exp.Expr, column: exp.Identifier) -> None:
    alias = table.args.get("alias") or exp.TableAlias(this=column.copy())
    alias.set("columns", [column.copy()])
    table.set("alias", alias)


def _limit(node: exp.Expr, name: str) -> exp.Expr | None:
    limit = node.args.get(name)
    if isinstance(limit, exp.Neg):
        text = f"SQL compilation error:\ninvalid value [{limit.sql()}] for parameter '{name.upper()}'"
        raise SnowflakeError(1008, "22023", text)
    return None if isinstance(limit, exp.Null) else limit


def sequence(node: exp.Expr) -> None:
    """Put the number of the row; in a window's ORDER BY, where Snowpark uses it, any order will do."""
    if not isinstance(node.find_ancestor(exp.Window, exp.Select), exp.Window):
        node.replace(_wrapped(node))
        return
    ordered = node.find_ancestor(exp.Ordered, exp.Window)
    if not isinstance(ordered, exp.Ordered) or ordered.args.get("desc"):
        raise not_supported(f"{node.key.upper()} in a window, except in an ascending ORDER BY,")
    node.replace(exp.Null())


def _wrapped(node: exp.Expr) -> exp.Expr:
    number = exp.Anonymous(this="mlj_sequence")
    half = _HALVES.get(type(node))
    if half is None:
        return number
    return exp.Anonymous(
        this="mlj_wrapped", expressions=[number, exp.Literal.number(half), node.this or exp.Literal.number(0)]
    )


def without_partitions(node: exp.Expr) -> None:
    """Drop the partitions of a table function that sees one row at a time."""
    if isinstance(node.this, exp.Window) and isinstance(node.this.this, _ROW_BY_ROW):
        node.set("this", node.this.this)


def as_tables(expression: exp.Expr) -> None:
    """Replace table functions by DuckDB's and ours, without TABLE() and LATERAL around them."""
    for node in list(expression.find_all(exp.TableFromRows, exp.Lateral)):
        function = node.this
        if isinstance(function, exp.Generator):
            call = exp.Anonymous(this="range", expressions=[function.args["rowcount"]])
        elif isinstance(function, exp.SplitToTable):
            call = _split(function)
        else:
            continue
        node.replace(exp.Table(this=call, alias=node.args.get("alias")))


def _split(function: exp.SplitToTable) -> exp.Anonymous:
    text, delimiter = function.this, function.expression
    # The number of the row that a text comes from; several rows are distinguished by the hash of their texts.
    number = exp.Anonymous(this="hash", expressions=[text.copy()]) if text.find(exp.Column) else exp.Literal.number(1)
    return exp.Anonymous(this="mlj_split_to_table", expressions=[text, delimiter, number])
