"""Session variables: SET and UNSET."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import not_supported
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.sql.preparation import literal

if TYPE_CHECKING:
    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.sql.engine import Engine

_STATUS = (Column("status"),)
_DONE = "Statement executed successfully."


class Variables:
    """SET and UNSET.

    :param engine: computes the values.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def extension(self) -> Extension:
        """The statements."""
        return Extension(
            statements=(
                Statement(("SET",), self.set, _STATUS, "SET <variable> = <expression>"),
                Statement(("UNSET",), unset_variable, _STATUS, "UNSET { <variable> | ( <variable>, … ) }"),
            )
        )

    def set(self, context: Context, parser: Parser) -> Result:
        """Run ``SET name = expression``; the value is stored as SQL."""
        if parser.looking_at("("):
            raise not_supported("SET of several variables at once")
        name = parser.identifier()
        parser.expect("=")
        used = sum(1 for token in parser.tokens[: parser.position] if token.text == "?")
        binds = list(parser.binds or ())[used:]
        answer = self._engine.execute(context, f"SELECT {parser.rest.rstrip(' ;')}", binds)
        value = answer.arrow.column(0)[0].as_py() if answer.arrow is not None and answer.arrow.num_rows else None
        context.session.variables[name] = _literal(value)
        return Result.status(_DONE, "other")


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    if isinstance(value, datetime):
        return f"'{value.isoformat(sep=' ')}'::TIMESTAMP_NTZ"
    if isinstance(value, date):
        return f"'{value.isoformat()}'::DATE"
    return literal(None if value is None else str(value))


def unset_variable(context: Context, parser: Parser) -> Result:
    """Run ``UNSET name``."""
    names = parser.name_list() if parser.looking_at("(") else [parser.identifier()]
    parser.expect_end()
    for name in names:
        context.session.variables.pop(name, None)
    return Result.status(_DONE, "other")
