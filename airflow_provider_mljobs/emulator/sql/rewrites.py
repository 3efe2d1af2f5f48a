"""Rewrites of sqlglot's tree before and after fakesnow's translation, where it is wrong or incomplete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from airflow_provider_mljobs.emulator.errors import not_supported
from airflow_provider_mljobs.emulator.sql import table_expressions
from airflow_provider_mljobs.emulator.sql.error_translation import DIVISION_BY_ZERO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Per session, in DuckDB's SQL. CASE and IF leave a branch that isn't taken unevaluated, so DIV0 and the like work.
MACROS = (
    f"CREATE TEMP MACRO mlj_divisor(n) AS CASE WHEN n = 0 THEN error('{DIVISION_BY_ZERO}') ELSE n END",
    """CREATE TEMP MACRO mlj_typeof(v) AS CASE json_type(to_json(v))
         WHEN 'UBIGINT' THEN 'INTEGER' WHEN 'BIGINT' THEN 'INTEGER' WHEN 'DOUBLE' THEN 'DECIMAL'
         WHEN 'NULL' THEN 'NULL_VALUE' ELSE json_type(to_json(v)) END""",
    """CREATE TEMP MACRO mlj_unit(seed, salt) AS
         md5_number_lower(concat_ws(':', seed, salt)) / 18446744073709551616.0""",
    "CREATE TEMP MACRO mlj_next_unit(seed, salt) AS mlj_unit(concat_ws(':', seed, row_number() OVER ()), salt)",
    # Snowflake reads a text as hexadecimal digits.
    """CREATE TEMP MACRO mlj_binary(v) AS
         CASE WHEN typeof(v) = 'VARCHAR' THEN unhex(CAST(v AS VARCHAR)) ELSE CAST(v AS BLOB) END""",
    "CREATE TEMP MACRO mlj_random(u) AS CAST(floor((u - 0.5) * 18446744073709549568) AS BIGINT)",
    "CREATE TEMP MACRO mlj_uniform_int(low, high, u) AS CAST(floor(low + u * (high - low + 1)) AS BIGINT)",
    "CREATE TEMP MACRO mlj_uniform(low, high, u) AS CAST(low + u * (high - low) AS DOUBLE)",
    """CREATE TEMP MACRO mlj_normal(mean, deviation, u, v) AS
         CAST(mean + deviation * sqrt(-2 * ln(1 - u)) * cos(2 * pi() * v) AS DOUBLE)""",
    *table_expressions.MACROS,
)
# Ignored: they change how Snowflake stores or protects data, not the results of queries.
_IGNORED_PROPERTIES = (
    exp.Cluster, exp.ClusterProperty, exp.TransientProperty, exp.CopyGrantsProperty, exp.SecureProperty,
)  # fmt: skip
_IGNORED_NAMES = {
    "DATA_RETENTION_TIME_IN_DAYS", "MAX_DATA_EXTENSION_TIME_IN_DAYS", "CHANGE_TRACKING", "ENABLE_SCHEMA_EVOLUTION",
    "DEFAULT_DDL_COLLATION",
}  # fmt: skip
_SUMS = (exp.Sum, exp.Avg, exp.Variance, exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.VariancePop, exp.Median)
_CLOCKS: dict[type[exp.Expr], str] = {
    exp.CurrentTimestamp: "get_current_timestamp", exp.CurrentDate: "today", exp.Localtime: "current_localtime",
    exp.Localtimestamp: "current_localtimestamp",
}  # fmt: skip
# Elements of Snowflake's date formats, longest first, and strftime's.
_DATE_ELEMENTS = {
    "YYYY": "%Y", "YY": "%y", "MMMM": "%B", "MON": "%b", "MM": "%m", "DD": "%d", "DY": "%a", "HH24": "%H", "HH12": "%I",
    "MI": "%M", "SS": "%S", "FF3": "%g", "FF6": "%f", "FF9": "%n", "FF": "%n", "AM": "%p", "PM": "%p", "TZHTZM": "%z",
}  # fmt: skip


def call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    """Build the call of a function or macro."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def before_translation(expression: exp.Expr, titles: Sequence[str]) -> exp.Expr:
    """Rewrite a statement of Snowflake's SQL so that fakesnow translates it correctly.

    :param titles: names for the columns of the outermost SELECT.
    """
    _name_columns(expression, titles)
    table_expressions.without_parentheses(expression)
    _drop_properties(expression)
    # From the inside out, because some rules copy their operands.
    for node in reversed(list(expression.walk(bfs=False))):
        rule = _RULES.get(type(node))
        if rule is not None:
            rule(node)
    return expression


def after_translation(expression: exp.Expr) -> exp.Expr:
    """Undo fakesnow's cast of every sum to DOUBLE, which lets it sum texts.

    The current time becomes a call: DuckDB takes the bare word for a column that has this name.
    """
    for node in list(expression.find_all(*_SUMS)):
        if node.meta.get("plain") and isinstance(node.this, exp.TryCast):
            node.set("this", node.this.this)
    return expression.transform(_clock)


def _clock(node: exp.Expr) -> exp.Expr:
    name = None if node.args.get("sysdate") else _CLOCKS.get(type(node))
    return call(name) if name else node


def _name_columns(expression: exp.Expr, titles: Sequence[str]) -> None:
    outermost = expression
    while isinstance(outermost, (exp.SetOperation, exp.Subquery)):
        outermost = outermost.this
    for select in expression.find_all(exp.Select):
        items = select.expressions
        names = titles if select is outermost and len(titles) == len(items) else None
        select.set("expressions", [_named(item, names[i] if names else "") for i, item in enumerate(items)])


def _named(item: exp.Expr, title: str) -> exp.Expr:
    bare = (exp.Alias, exp.Aliases, exp.Star)
    is_title = isinstance(item, exp.Column) and title.startswith("$")
    if isinstance(item, bare) or item.is_star or (isinstance(item, exp.Column) and not is_title):
        return item
    return exp.alias_(item, title or item.sql(dialect="snowflake").upper(), quoted=True)


def _drop_properties(expression: exp.Expr) -> None:
    properties = expression.args.get("properties")
    if not isinstance(properties, exp.Properties):
        return
    relevant = [node for node in properties.expressions if not _is_ignored(node)]
    if relevant:
        properties.set("expressions", relevant)
    else:
        expression.set("properties", None)


def _is_ignored(node: exp.Expr) -> bool:
    named = type(node) is exp.Property and node.name.upper() in _IGNORED_NAMES
    return named or isinstance(node, _IGNORED_PROPERTIES)


def _divide(node: exp.Expr) -> None:
    divisor = node.expression
    if not (isinstance(divisor, exp.Literal) and not divisor.is_string and float(divisor.this) != 0):
        node.set("expression", call("mlj_divisor", divisor))


def _typeof(node: exp.Expr) -> None:
    node.replace(call("mlj_typeof", node.this))


def _to_char(node: exp.Expr) -> None:
    template = node.args.get("format")
    if template is None:
        return
    if not (isinstance(template, exp.Literal) and template.is_string):
        raise not_supported("TO_CHAR with a format that is no literal")
    node.replace(call("strftime", node.this, exp.Literal.string(_strftime(template.this))))


def _strftime(template: str) -> str:
    """Translate a date format; raises for a format of numbers and for elements that strftime lacks."""
    elements, rest = [], template
    while rest:
        element = next((name for name in _DATE_ELEMENTS if rest.upper().startswith(name)), None)
        if element is None and rest[0].isalnum():
            raise not_supported(f"TO_CHAR with the format {template!r}")
        elements.append(_DATE_ELEMENTS[element] if element else rest[0].replace("%", "%%"))
        rest = rest[len(element) if element else 1 :]
    return "".join(elements)


def _values(node: exp.Expr) -> None:
    """Name the columns of ``VALUES (…) AS t`` as Snowflake does; fakesnow names those without an alias."""
    alias = node.args.get("alias")
    row = node.expressions[0] if node.expressions else None
    if alias is not None and not alias.args.get("columns") and isinstance(row, exp.Tuple):
        alias.set("columns", [exp.to_identifier(f"COLUMN{i + 1}", quoted=True) for i in range(len(row.expressions))])


def _sum(node: exp.Expr) -> None:
    if not isinstance(node.this, (exp.Cast, exp.TryCast)):
        node.meta["plain"] = True


def _unit(node: exp.Expr | None, salt: int) -> exp.Expr:
    """Return a number from 0 to 1 for a generator.

    RANDOM() and RANDOM(seed) give the next one for each row, any other expression the same one for the same value.
    """
    number = exp.Literal.number(salt)
    if not isinstance(node, exp.Rand):
        return call("mlj_unit", node.copy() if node is not None else exp.Null(), number)
    return call("mlj_next_unit", node.this.copy(), number) if node.this is not None else call("RANDOM")


def _random(node: exp.Expr) -> None:
    if not isinstance(node.parent, (exp.Uniform, exp.Normal)):
        node.replace(call("mlj_random", _unit(node, 0)))


def _uniform(node: exp.Expr) -> None:
    low, high = node.this, node.expression
    whole = low.is_int and high.is_int
    node.replace(call("mlj_uniform_int" if whole else "mlj_uniform", low, high, _unit(node.args.get("gen"), 0)))


def _normal(node: exp.Expr) -> None:
    generator = node.args.get("gen")
    units = (_unit(generator, 1), _unit(generator, 2))
    node.replace(call("mlj_normal", node.this, node.args["stddev"], *units))


def _sample(node: exp.Expr) -> None:
    if node.args.get("size") is not None:
        node.set("method", exp.Var(this="RESERVOIR"))


def _array(node: exp.Expr) -> None:
    """Make arrays JSON, whose elements may differ in type; fakesnow does so for some of them only."""
    if not isinstance(node.parent, exp.ArrayConcat):
        node.replace(call("json_array", *node.expressions))


def _cast(node: exp.Expr) -> None:
    target = node.args["to"].this
    if target in {exp.DataType.Type.BINARY, exp.DataType.Type.VARBINARY}:
        node.replace(call("mlj_binary", node.this))
    elif target in exp.DataType.TEXT_TYPES and isinstance(node.this, exp.Column):
        # A text in a VARIANT is that text, without the quotes of JSON. fakesnow knows it of paths in a VARIANT only.
        is_variant = exp.EQ(this=call("typeof", node.this.copy()), expression=exp.Literal.string("JSON"))
        text = call("json_extract_string", call("to_json", node.this.copy()), exp.Literal.string("$"))
        node.replace(exp.Case().when(is_variant, text).else_(node.copy()))


def _refuse(feature: str) -> Callable[[exp.Expr], None]:
    def rule(_: exp.Expr) -> None:
        raise not_supported(feature)

    return rule


_RULES: dict[type[exp.Expr], Callable[[exp.Expr], None]] = {
    exp.Div: _divide,
    exp.Mod: _divide,
    exp.Typeof: _typeof,
    exp.ToChar: _to_char,
    exp.Values: _values,
    exp.Rand: _random,
    **dict.fromkeys((exp.Seq1, exp.Seq2, exp.Seq4, exp.Seq8), table_expressions.sequence),
    **dict.fromkeys((exp.TableFromRows, exp.Lateral), table_expressions.without_partitions),
    exp.Generator: table_expressions.generator,
    exp.TableSample: _sample,
    exp.Array: _array,
    exp.Cast: _cast,
    exp.Uniform: _uniform,
    exp.Normal: _normal,
    exp.Randstr: _refuse("RANDSTR"),
    exp.Zipf: _refuse("ZIPF"),
    **dict.fromkeys(_SUMS, _sum),
}
